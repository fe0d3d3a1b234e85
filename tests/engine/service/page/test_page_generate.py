from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canned_answers import TEXTS, cells_answer
from fake_page_server import Scene
from page_driving import GREEN, figures, finish, generate, texts
from typer.main import get_command

if TYPE_CHECKING:
    from playwright.sync_api import Page

IDS = cells_answer("demo", "cells.h5ad", "cell_type")["ids"]


def test_text_grid_and_bars_grow_with_the_tokens(page: Page, scene: Scene) -> None:
    scene.delay_s = 0.03
    assert page.locator(".bars li").count() == 0
    page.click("#generate")
    page.wait_for_function("() => document.querySelectorAll('.token').length > 3")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    early, green = texts(page)[0], page.evaluate(GREEN)
    assert 0 < len(early) < len(TEXTS[0])
    assert page.locator(".bars li").count() == 10
    assert page.is_visible("#stop")
    assert page.locator("#generate").is_disabled()
    scene.delay_s = 0
    finish(page)
    assert texts(page) == [TEXTS[0]]
    assert page.evaluate(GREEN) > green > 0
    assert page.locator("#columns .gene").count() == 10
    assert not page.is_visible("#stop")


def test_figures_are_those_of_the_record(page: Page) -> None:
    generate(page)
    assert figures(page) == {
        "Tokens": "50", "Waited": "0 ms", "Writing time": "82 ms", "First token, wait included": "12 ms",
        "Tokens/s": "613", "Mean log p": "−0.25",
    }  # fmt: skip
    assert page.inner_text(".state") == "Finished"


def test_times_say_from_when_they_count(page: Page, scene: Scene) -> None:
    scene.record = {"queue_ms": 900, "latency_ms": 100, "time_to_first_token_ms": 910}
    generate(page)
    told = figures(page)
    assert [told["Waited"], told["Writing time"], told["First token, wait included"]] == ["900 ms", "100 ms", "910 ms"]
    times = page.locator(".column >> nth=0 >> .figures [title]")
    english = times.evaluate_all("(all) => all.map((one) => one.title)")
    assert ["arrival of the request" in tip for tip in english] == [True, False, True]
    assert [tip.endswith(("is not counted.", "is counted.")) for tip in english] == [False, True, True]
    page.select_option("#language", "zh")
    assert times.evaluate_all("(all) => all.map((one) => one.title)")[1].endswith("不含之前的等待。")
    assert list(figures(page))[1:4] == ["等待用时", "生成用时", "首词元（含等待）"]
    page.select_option("#language", "en")


def test_the_time_that_runs_along_leaves_out_the_wait(page: Page, scene: Scene) -> None:
    scene.wait_s = 0.6
    scene.delay_s = 3
    page.click("#generate")
    page.wait_for_selector(".token")
    names = ("Waited", "Writing time", "First token, wait included")
    waited, writing, first = (float(figures(page)[name].removesuffix(" ms").replace(",", "")) for name in names)
    assert writing < 500 < waited <= first
    page.click("#stop")


def test_genes_that_the_text_names_are_marked(page: Page) -> None:
    generate(page)
    assert page.locator(".token.named").all_text_contents() == ["FTL", "LST1", "AIF1", "FCER1G", "FCGR3A"]
    assert "LST1" in page.locator(".bars .named .gene").all_text_contents()


def test_numbers_that_do_not_exist_are_dashes(page: Page, scene: Scene) -> None:
    scene.record = {"mean_logprob": None, "latency_ms": None, "queue_ms": None, "time_to_first_token_ms": None}
    scene.record["finish_reason"] = "length"
    generate(page)
    assert list(figures(page).values()) == ["50", "–", "–", "–", "–", "–"]
    assert page.inner_text(".state") == "Ended at the longest length"


def test_settings_reach_the_server(page: Page, scene: Scene) -> None:
    generate(page)
    page.check("input[value=top-p]", force=True)
    page.fill("[name=temperature]", "0.8")
    page.fill("[name=top_p]", "0.95")
    page.fill("[name=seed]", "3")
    page.fill("[name=max_new_tokens]", "12")
    generate(page)
    greedy, sampled = scene.asked("/v1/describe")
    common = {"source": "demo", "cell_ids": IDS[:1], "top_genes": 10, "grid": True, "stream": True}
    assert greedy == {**common, "temperature": 0, "top_p": None, "seed": 0, "max_new_tokens": 96}
    assert sampled == {**common, "temperature": 0.8, "top_p": 0.95, "seed": 3, "max_new_tokens": 12}
    assert page.locator(".token").count() == 12


def test_a_token_shows_its_genes_when_pointed_at_and_when_focused(page: Page) -> None:
    generate(page)
    whole = page.evaluate(GREEN)
    page.hover(".token >> nth=4")
    assert page.locator("#tip .gene").count() == 6
    assert "probability" in page.inner_text("#tip")
    page.wait_for_timeout(60)
    assert page.evaluate(GREEN) != whole  # the grid shows this token alone
    page.mouse.move(0, 0)
    assert page.is_hidden("#tip")
    page.focus(".token >> nth=0")
    first = page.inner_text("#tip")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#tip")
    assert page.inner_text("#tip") != first
    assert page.locator(".token >> nth=1").get_attribute("aria-describedby") == "tip"


def test_stopping_keeps_what_came_and_leaves_the_server(page: Page, scene: Scene) -> None:
    scene.delay_s = 0.05
    page.click("#generate")
    page.wait_for_selector(".token")
    page.click("#stop")
    assert page.inner_text(".state") == "Stopped"
    kept = texts(page)[0]
    assert kept
    assert scene.left.wait(5)
    assert texts(page)[0] == kept
    assert not page.locator("#generate").is_disabled()
    assert page.locator(".error").count() == 0


def test_two_cells_are_written_side_by_side(page: Page, scene: Scene) -> None:
    scene.delay_s = 0.02
    page.check("#compare")
    assert page.locator("#generate").is_disabled()
    page.click("#list .option >> nth=5")
    page.click("#generate")
    page.wait_for_function("() => [...document.querySelectorAll('.text')].every((text) => text.textContent.length > 9)")
    assert page.locator(".column.running").count() == 2
    scene.delay_s = 0
    finish(page)
    assert texts(page) == list(TEXTS)
    assert scene.asked("/v1/describe")[0]["cell_ids"] == [IDS[0], IDS[5]]
    left, right = (page.locator(f".column >> nth={at}").bounding_box() for at in (0, 1))
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    page.click(".slot >> nth=0")
    page.click("#list .option >> nth=5")  # the cell of B: they change places
    assert page.locator(".slot .id").all_text_contents() == [IDS[5], IDS[0]]


def saved(page: Page, path: Path) -> dict[str, Any]:
    """Return what the page offers as a download, kept at a path, and its name as `file`."""
    with page.expect_download() as waiting:
        page.click("#download")
    waiting.value.save_as(path)
    return {"file": waiting.value.suggested_filename, **json.loads(path.read_text())}


def test_download_holds_results_and_tokens(page: Page, tmp_path: Path) -> None:
    generate(page)
    told = saved(page, tmp_path / "result.json")
    assert told["file"] == f"cellscribe-{IDS[0]}.json"
    assert told["model"] == "demo"
    (result,) = told["results"]
    assert result["text"] == TEXTS[0] == "".join(token["text"] for token in result["streamed"])
    assert len(result["top_genes"]) == 10


def test_download_holds_the_settings_that_were_sent(page: Page, scene: Scene, tmp_path: Path) -> None:
    generate(page)
    greedy = saved(page, tmp_path / "greedy.json")["settings"]
    assert greedy == {"temperature": 0, "top_p": None, "seed": 0, "max_new_tokens": 96}
    page.check("input[value=top-p]", force=True)
    page.fill("[name=temperature]", "0.8")
    generate(page)
    page.fill("[name=temperature]", "0.3")  # of no run yet
    drawn = saved(page, tmp_path / "drawn.json")["settings"]
    for told, request in zip((greedy, drawn), scene.asked("/v1/describe"), strict=True):
        assert told == {name: request[name] for name in told}
    assert (drawn["temperature"], drawn["top_p"]) == (0.8, 0.9)
    page.check("input[value=greedy]", force=True)
    assert "--sampling greedy --seed" in page.inner_text("#command")


def test_the_copied_command_is_one_that_the_command_line_takes(open_page: Callable[..., Page], scene: Scene) -> None:
    from cellscribe.cli.app import build

    ids = ["it's $HOME", "-x", "plain-1"]
    scene.cells = {"ids": ids, "groups": None, "map": None, "name": "my cells.h5ad", "n_cells": 3}
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.click("#list .option >> nth=0")
    page.check("#compare")
    page.click("#list .option >> nth=1")
    page.check("input[value=top-p]", force=True)
    page.fill("[name=seed]", "3")
    page.fill("[name=max_new_tokens]", "64")
    page.click("#copy")
    page.wait_for_function("() => document.querySelector('#copy').textContent === 'Copied'")
    words = shlex.split(page.evaluate("() => navigator.clipboard.readText()"))
    assert words == [
        "cellscribe", "describe", "my cells.h5ad", "--bundle", "demo", "--cell-id", "it's $HOME", "--cell-id=-x",
        "--sampling", "top-p", "--temperature", "0.7", "--top-p", "0.9", "--seed", "3", "--max-new-tokens", "64",
    ]  # fmt: skip
    described = get_command(build()).commands["describe"].make_context("describe", words[2:])
    assert described.params["cell_id"] == ["it's $HOME", "-x"]
    assert described.params["seed"] == 3
