from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from canned_answers import TEXTS
from fake_page_server import PAGE, Scene
from page_driving import generate, texts

if TYPE_CHECKING:
    from playwright.sync_api import Page

LANGUAGES = '() => import("/page/strings.js").then((strings) => strings.languages)'
BACKGROUND = "() => getComputedStyle(document.body).backgroundColor"
WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_every_sentence_has_both_languages_and_the_same_places(page: Page) -> None:
    languages = page.evaluate(LANGUAGES)
    english, chinese = languages["en"], languages["zh"]
    assert list(english) == list(chinese)
    for key, sentence in english.items():
        assert sorted(re.findall(r"{\w+}", sentence)) == sorted(re.findall(r"{\w+}", chinese[key])), key
        assert sentence, key
        assert chinese[key], key


def test_every_sentence_that_the_page_names_exists_and_is_used(page: Page) -> None:
    known = set(page.evaluate(LANGUAGES)["en"])
    in_html = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', (PAGE / "index.html").read_text()))
    assert in_html <= known
    scripts = "".join(file.read_text() for file in PAGE.glob("*.js") if file.stem not in ("english", "chinese"))
    quoted = set(re.findall(r'"(\w+)"', scripts))
    assert known - in_html <= quoted
    told = re.findall(r'\b(?:tell|t|describeAs|showProblem)\((?:[\w$.()"-]+, )?"(\w+)"[,)]', scripts)
    assert set(told) <= known


def test_files_are_small_and_nothing_is_inline() -> None:
    for file in PAGE.iterdir():
        assert len(file.read_text().splitlines()) <= 250, file.name
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    assert "innerHTML" not in "".join(file.read_text() for file in PAGE.glob("*.js"))


def test_every_module_is_asked_for_at_once() -> None:
    html = (PAGE / "index.html").read_text()
    named = re.findall(r'<(?:link rel="modulepreload" href|script type="module" src)="page/([\w.]+)"', html)
    assert sorted(named) == sorted(file.name for file in PAGE.glob("*.js"))


def test_the_language_is_switched_and_remembered(page: Page) -> None:
    generate(page)
    assert page.inner_text("#generate") == "Generate"
    page.select_option("#language", "zh")
    assert page.inner_text("#generate") == "生成"
    assert page.inner_text(".state") == "已完成"
    assert page.inner_text("#cells-count") == "140 个细胞"
    assert page.get_attribute("html", "lang") == "zh-CN"
    assert page.get_attribute(".column canvas", "aria-label").startswith("对 256 个基因的注意力")
    assert texts(page) == [TEXTS[0]]
    page.reload()
    page.wait_for_selector(".option")
    assert page.inner_text("#generate") == "生成"


def test_the_browsers_language_is_the_first_one(open_page: Callable[..., Page]) -> None:
    page = open_page(locale="zh-CN")
    page.wait_for_selector(".option")
    assert page.inner_text("#cells-title") == "细胞"


def test_dark_follows_the_system_until_the_switch_is_used(open_page: Callable[..., Page]) -> None:
    page = open_page(color_scheme="dark")
    page.wait_for_selector(".option")
    dark = page.evaluate(BACKGROUND)
    page.click("#theme")
    light = page.evaluate(BACKGROUND)
    assert dark == "rgb(13, 18, 15)"
    assert light == "rgb(244, 246, 244)"
    assert page.get_attribute("#theme", "aria-label") == "Use dark colours"
    page.reload()
    page.wait_for_selector(".option")
    assert page.evaluate(BACKGROUND) == light


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_a_phone_never_scrolls_sideways(open_page: Callable[..., Page], scene: Scene, language: str) -> None:
    page = open_page(viewport={"width": 375, "height": 700}, locale=language, has_touch=True)
    page.wait_for_selector(".option")
    assert page.evaluate(WIDE) == 0
    page.check("#compare")
    page.click("#list .option >> nth=3")
    page.check("input[value=top-p]", force=True)
    generate(page)
    assert page.evaluate(WIDE) == 0
    page.hover(".token >> nth=12")
    assert page.evaluate(WIDE) == 0
    scene.refuse(422, "invalid_request_error", "a_long_word_without_any_place_to_break_it" * 5)
    page.click("#generate")
    page.wait_for_selector(".error")
    assert page.evaluate(WIDE) == 0


def test_the_keyboard_alone_generates_and_reads(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    for _ in range(30):  # on to the button
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.id") == "generate":
            break
    ring = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.column.begun:not(.running)')")
    assert ring == "solid"
    assert page.evaluate("() => document.activeElement.id") == "generate"
    for _ in range(3):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.className").startswith("token"):
            break
    page.keyboard.press("End")
    assert page.evaluate("() => document.activeElement.textContent") == "."
    assert page.is_visible("#tip")
    page.wait_for_function("(end) => document.querySelector('#said').textContent.includes(end)", arg=TEXTS[0][-30:])


def test_escape_stops_and_control_enter_generates(page: Page, scene: Scene) -> None:
    scene.delay_s = 0.05
    page.focus("[name=seed]")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".token")
    page.keyboard.press("Escape")
    assert page.inner_text(".state") == "Stopped"


def test_everything_that_can_be_operated_has_a_name(page: Page) -> None:
    generate(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, canvas, [role]")].filter((element) => {
          if (element.closest("[hidden]") || ["presentation", "tooltip", "status"].includes(element.role)) return false;
          const label = element.labels?.[0]?.textContent || element.getAttribute("aria-label");
          return !(label || element.textContent).trim();
        }).map((element) => element.outerHTML)"""
    )
    assert nameless == []
