"""What several tests do with the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

DONE = ".column.begun:not(.running)"
# How many pixels of the first grid are clearly green.
GREEN = """() => {
  const canvas = document.querySelector("canvas.grid");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let at = 0; at < data.length; at += 4) if (data[at + 1] > data[at] + 40 && data[at + 3] > 200) count += 1;
  return count;
}"""


def finish(page: Page) -> None:
    """Wait until no text is being written, and for what is drawn afterwards."""
    page.wait_for_function(
        "() => document.querySelector('.column.begun') && !document.querySelector('.column.running')"
    )
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def generate(page: Page) -> None:
    """Press the button and wait for the text."""
    page.click("#generate")
    finish(page)


def texts(page: Page) -> list[str]:
    """Return the texts of the columns."""
    return page.locator(".column .text").all_text_contents()


def figures(page: Page) -> dict[str, str]:
    """Return the figures of the first column by their names."""
    names = page.locator(".column >> nth=0 >> dt").all_text_contents()
    return dict(zip(names, page.locator(".column >> nth=0 >> dd").all_text_contents(), strict=True))
