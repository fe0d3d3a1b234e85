"""The list of cells shows whole rows, as many as there is room for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Rows that are cut off at either end of the list, rows that fit, and how much of the panel is out of sight.
ROWS = """() => {
  const list = document.querySelector("#list");
  const { top, bottom } = list.getBoundingClientRect();
  const boxes = [...list.querySelectorAll(".option")].map((row) => row.getBoundingClientRect());
  const isOver = (edge, box) => box.top < edge - 2 && box.bottom > edge + 2;
  const cut = boxes.filter((box) => isOver(top, box) || isOver(bottom, box));
  const panel = document.querySelector("#cells");
  return [cut.length, list.clientHeight / 30, panel.scrollHeight - panel.clientHeight];
}"""


@pytest.mark.parametrize(
    ("width", "height", "least"), [(1280, 800, 7), (1600, 1000, 10), (1366, 768, 5), (1920, 1200, 14), (390, 844, 6)]
)
@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_rows_are_whole_and_fill_the_panel(
    open_page: Callable[..., Page], width: int, height: int, least: int, language: str
) -> None:
    page = open_page(viewport={"width": width, "height": height}, locale=language)
    page.wait_for_selector(".option")
    cut, rows, hidden = page.evaluate(ROWS)
    assert cut == 0
    assert rows == int(rows) >= least
    assert hidden == 0


def test_a_list_that_was_scrolled_comes_to_stand_on_whole_rows(page: Page) -> None:
    page.hover("#list")
    page.mouse.wheel(0, 100)
    page.wait_for_function(
        "() => { const top = document.querySelector('#list').scrollTop; return top > 0 && top % 30 === 0; }"
    )
    assert page.evaluate(ROWS)[0] == 0
    page.mouse.wheel(0, 100_000)
    page.wait_for_selector(".option[aria-posinset='140']")
    page.wait_for_timeout(200)
    assert page.evaluate(ROWS)[0] == 0
