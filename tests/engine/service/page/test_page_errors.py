from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from canned_answers import TEXTS
from fake_page_server import Scene
from page_driving import figures, finish, generate, texts

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_a_busy_service_says_so_and_can_be_asked_again(page: Page, scene: Scene) -> None:
    message = "The queue holds 512 cells, which is its most; ask again in a second."
    scene.refuse(429, "rate_limit_error", message, Retry_After="1")
    page.click("#generate")
    again = page.locator(".error .primary")
    assert page.inner_text(".error h2") == "The service is busy"
    assert message in page.inner_text(".error")
    assert again.is_disabled()
    assert again.inner_text() == "Try again in 1 s"
    again.click()  # waits until it can be pressed
    finish(page)
    assert texts(page) == [TEXTS[0]]
    assert page.locator(".error").count() == 0


def test_a_setting_that_the_server_refuses_is_pointed_at(page: Page, scene: Scene) -> None:
    message = "max_new_tokens is 96, and this bundle writes 64 at most; ask for 64 or fewer."
    scene.refuse(422, "invalid_request_error", message, param="max_new_tokens")
    page.click("#generate")
    assert message in page.inner_text(".error")
    assert page.is_visible(".column .hint")
    page.click("text=Change the setting")
    focused = page.locator("[name=max_new_tokens]")
    assert focused.evaluate("(input) => input === document.activeElement")
    assert focused.get_attribute("aria-invalid") == "true"


def test_a_setting_out_of_range_is_not_sent(page: Page, scene: Scene) -> None:
    for name, value, good in [("max_new_tokens", "257", "96"), ("seed", "1.5", "0"), ("seed", "", "0")]:
        page.fill(f"[name={name}]", value)
        page.click("#generate")
        assert "must be a whole number" in page.inner_text("#invalid")
        assert page.get_attribute(f"[name={name}]", "aria-invalid") == "true"
        page.fill(f"[name={name}]", good)
    assert not scene.asked("/v1/describe")
    generate(page)
    assert page.is_hidden("#invalid")


@pytest.mark.parametrize("seed", ["9007199254740993", "99999999999999999999", "0.9999999999999999999"])
def test_a_seed_that_would_become_another_is_not_sent(page: Page, scene: Scene, seed: str) -> None:
    page.fill("[name=seed]", seed)
    sentence = "Seed must be a whole number from 0 to 9,007,199,254,740,991."
    assert page.inner_text("#command") == sentence
    assert page.locator("#copy").is_disabled()
    page.click("#generate")
    assert page.inner_text("#invalid") == sentence
    assert not scene.asked("/v1/describe")
    page.select_option("#language", "zh")
    assert page.inner_text("#invalid") == page.inner_text("#command")
    assert page.inner_text("#invalid").startswith("随机种子必须是 0 到 9,007,199,254,740,991 ")
    page.select_option("#language", "en")


def test_the_largest_seed_is_sent_as_it_was_typed(page: Page, scene: Scene) -> None:
    page.fill("[name=seed]", "9007199254740991")
    generate(page)
    assert scene.asked("/v1/describe")[0]["seed"] == 2**53 - 1
    assert "--seed 9007199254740991 " in page.inner_text("#command")
    assert page.locator("#copy").is_enabled()


def test_a_key_is_asked_for_tried_and_kept_for_the_tab(open_page: Callable[..., Page], scene: Scene) -> None:
    scene.key = "sesame"
    page = open_page()
    page.wait_for_selector("#key")
    assert "API key" in page.inner_text("#key-why")
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-panel:not([hidden])")
    page.fill("#key", "sesame")
    page.click("text=Use this key")
    page.wait_for_selector(".option")
    assert page.is_hidden("#key-panel")
    generate(page)
    assert texts(page) == [TEXTS[0]]
    assert page.evaluate("() => Object.values(localStorage).includes('sesame')") is False
    page.reload()
    page.wait_for_selector(".option")


def test_a_key_that_changed_is_asked_for_when_generating(page: Page, scene: Scene) -> None:
    scene.key = "new"
    page.click("#generate")
    page.fill("#key", "new")
    page.keyboard.press("Enter")
    finish(page)
    assert texts(page) == [TEXTS[0]]


def test_a_connection_lost_keeps_the_text_and_offers_to_try_again(page: Page, scene: Scene) -> None:
    scene.cut_after = 6
    page.click("#generate")
    page.wait_for_selector(".error")
    assert "connection was lost" in page.inner_text(".error")
    assert page.inner_text(".state") == "Incomplete"
    assert TEXTS[0].startswith(texts(page)[0])
    assert figures(page)["Tokens"] == "6"
    scene.cut_after = None
    page.click("text=Try again")
    finish(page)
    assert texts(page) == [TEXTS[0]]


def test_an_error_in_the_stream_is_shown_in_the_servers_words(page: Page, scene: Scene) -> None:
    message = "The deadline of 2 s passed after 1 token; ask for fewer tokens or a longer deadline_s."
    scene.event = {"error": {"message": message, "type": "timeout_error", "param": None, "code": 504}}
    page.click("#generate")
    page.wait_for_selector(".error")
    assert message in page.inner_text(".error")
    assert page.inner_text(".error h2") == "It took too long"


def test_a_cell_that_failed_says_why_and_the_other_is_written(page: Page, scene: Scene) -> None:
    scene.record = {"status": "failed: the cell has no gene of the bundle", "text": ""}
    page.click("#generate")
    page.wait_for_selector(".column:not(.running) .invalid:not(:empty)")
    assert "has no gene of the bundle" in page.inner_text(".column .invalid")
    assert page.inner_text(".state") == "Failed"
    scene.record = {}
    generate(page)
    assert texts(page) == [TEXTS[0]]
    assert page.locator(".column .invalid:not(:empty)").count() == 0


def test_events_are_read_however_the_bytes_are_cut(page: Page) -> None:
    sent = ': heart\n\nevent: token\r\ndata: {"text":"细胞"}\r\n\r\nevent: done\ndata: {}\n\nevent: half\ndata: {'
    read = page.evaluate(
        """async (bytes) => {
          const { events } = await import("/page/sse.js");
          const body = new ReadableStream({ start(to) {
            for (const byte of bytes) to.enqueue(new Uint8Array([byte]));
            to.close();
          } });
          const found = [];
          for await (const event of events(body)) found.push([event.name, event.data.text ?? null]);
          return found;
        }""",
        list(sent.encode()),
    )
    assert read == [["token", "细胞"], ["done", None]]


def test_a_server_that_went_away_is_told_of(page: Page) -> None:
    page.context.set_offline(True)
    page.click("#generate")
    page.wait_for_selector(".error")
    assert "cannot be reached" in page.inner_text(".error")
    assert page.is_visible("text=Try again")


def test_what_a_server_sends_is_never_markup(open_page: Callable[..., Page], scene: Scene) -> None:
    evil = "<img src=x onerror=\"document.title='evil'\"><b>B</b>"
    scene.cells = {"ids": [evil], "name": evil, "n_cells": 1, "map": None,
                   "groups": {"column": evil, "names": [evil], "of": [0]}, "columns": [evil]}  # fmt: skip
    page = open_page()
    page.wait_for_selector(".option")
    scene.refuse(422, "invalid_request_error", evil)
    page.click("#generate")
    assert evil in page.inner_text(".error")
    assert page.locator("main img, main b:has-text('B'):not(.letter)").count() == 0
    assert page.title() == "Cellscribe"


def test_a_text_stays_until_the_service_takes_the_next_request(page: Page, scene: Scene) -> None:
    generate(page)
    page.fill("[name=seed]", "9")
    scene.refuse(429, "rate_limit_error", "The queue is full.")
    page.click("#generate")
    page.wait_for_selector(".error")
    assert texts(page) == [TEXTS[0]]
    assert page.inner_text(".state") == "Finished"
    with page.expect_download() as waiting:
        page.click("#download")
    assert json.loads(waiting.value.path().read_text())["settings"]["seed"] == 0


def test_the_seconds_that_count_down_are_not_read_out(page: Page, scene: Scene) -> None:
    scene.refuse(429, "rate_limit_error", "The queue is full.", Retry_After="30")
    page.click("#generate")
    page.wait_for_selector(".error")
    assert page.inner_text(".error [role=alert]").split("\n")[-1] == "The queue is full."
    assert page.locator(".error [role=alert] button").count() == 0
