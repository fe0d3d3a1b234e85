"""What is written can be read: contrasts of WCAG 2, level AA, in both themes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from fake_page_server import Scene
from page_driving import generate

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Texts with a contrast under 4.5 (3 where they are large), and fields whose edge has one under 3.
FAINT = """async () => {
  const { contrast, over, parts } = await import("/page/contrast.js");
  const opaque = (colour) => Number(colour.match(/rgba\\(.*?([\\d.]+)\\)$/)?.[1] ?? 1);
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const colour = getComputedStyle(element).backgroundColor;
    const below = opaque(colour) < 1 ? ground(element.parentElement) : [0, 0, 0];
    return over(parts(colour), below, opaque(colour));
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    if (!element.checkVisibility() || element.closest(".unseen, :disabled, svg, option, .skip, noscript")) continue;
    const style = getComputedStyle(element);
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const ratio = contrast(parts(style.color), ground(element));
    if ((own || element.matches("input, select")) && ratio < least) found.push([element.outerHTML.slice(0, 90), ratio]);
    if (!element.matches("input:not([type=radio], [type=checkbox], .unseen), select, textarea")) continue;
    if (opaque(style.borderTopColor) === 0) continue; // the language: its arrow says what it is
    const edge = contrast(parts(style.borderTopColor), ground(element.parentElement));
    if (edge < 3) found.push([element.outerHTML.slice(0, 90), edge]);
  }
  return found;
}"""
INKS = """async () => {
  const { contrast, over, parts, readable } = await import("/page/contrast.js");
  const { colour } = await import("/page/dom.js");
  const [card, track, green, soft, ink] = ["card", "track", "green", "soft", "ink"].map((name) => parts(colour(name)));
  const ratios = [];
  for (let level = 0; level <= 1; level += 0.01) for (const ground of [card, track]) {
    const fill = over(green, ground, level);
    ratios.push(contrast(readable([soft, ink, [0, 0, 0], [255, 255, 255]], fill), fill));
  }
  return Math.min(...ratios);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_texts_and_fields_stand_out(open_page: Callable[..., Page], scene: Scene, scheme: str) -> None:
    page = open_page(color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_selector(".option")
    assert page.evaluate(FAINT) == []
    page.check("#compare")
    page.click("#list .option >> nth=5")
    page.check("input[value=top-p]", force=True)
    scene.record = {"values": [0, None] + [1] * 8}
    generate(page)
    page.click("#legend button >> nth=0")
    page.hover(".token >> nth=6")
    assert page.evaluate(FAINT) == []
    page.fill("[name=seed]", "1.5")
    page.click("#generate")
    assert page.is_visible("#invalid")
    page.fill("[name=seed]", "1")
    scene.refuse(429, "rate_limit_error", "The queue is full; come again.", Retry_After="30")
    page.click("#generate")
    page.wait_for_selector(".error")
    assert page.evaluate(FAINT) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_on_tiles_stand_out_however_green_these_are(open_page: Callable[..., Page], scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    page.wait_for_selector(".option")
    assert page.evaluate(INKS) >= 4.5


def test_contrasts_are_those_of_the_standard(page: Page) -> None:
    ratio = page.evaluate(
        """async () => {
          const { contrast } = await import("/page/contrast.js");
          return [contrast([0, 0, 0], [255, 255, 255]), contrast([119, 119, 119], [255, 255, 255])];
        }"""
    )
    assert ratio == [21, pytest.approx(4.478, abs=0.001)]
