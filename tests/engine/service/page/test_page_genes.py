"""Genes that a cell was not given are told from those that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from canned_answers import GENES
from fake_page_server import Scene
from page_driving import generate

if TYPE_CHECKING:
    from playwright.sync_api import Page

TOP = [{"gene": gene, "weight": 0.3 - 0.02 * at} for at, gene in enumerate(GENES[:10])]
VALUES = [3, 0, None, 1, 1, 1, 1, 1, 1, 2]
SAID = "zero or not measured in this cell"


@pytest.mark.parametrize(
    "told",
    [
        {"top_genes": TOP, "values": VALUES},
        {"top_genes": TOP, "given": [bool(value) for value in VALUES]},
        {"top_genes": [{**one, "value": value} for one, value in zip(TOP, VALUES, strict=True)]},
        {"top_genes": [{**one, "is_detected": bool(value)} for one, value in zip(TOP, VALUES, strict=True)]},
    ],
    ids=["values", "given", "value", "is_detected"],
)
def test_bars_of_genes_that_the_cell_lacks_are_hollow_and_say_so(page: Page, scene: Scene, told: object) -> None:
    assert isinstance(told, dict)
    scene.record = told
    generate(page)
    absent = page.locator("#columns .absent")
    assert absent.locator(".gene").all_text_contents() == list(GENES[1:3])
    assert absent.first.get_attribute("title") == SAID
    assert SAID in str(absent.first.text_content())
    assert page.is_visible(".is-absent")
    assert page.inner_text(".is-absent") == SAID
    full, hollow = (page.locator(f"#columns li:{kind} i >> nth=0") for kind in ("not(.absent)", "is(.absent)"))
    fills = [bar.evaluate("(bar) => getComputedStyle(bar).backgroundImage") for bar in (full, hollow)]
    assert fills[0] == "none"
    assert "gradient" in fills[1]


def test_nothing_is_marked_where_the_server_does_not_tell(page: Page) -> None:
    generate(page)
    assert page.locator(".absent").count() == 0
    assert page.is_hidden(".is-absent")
    assert page.is_visible(".is-named")


@pytest.mark.parametrize("is_by_place", [False, True])
def test_tiles_of_genes_that_the_cell_lacks_are_frames(page: Page, scene: Scene, is_by_place: bool) -> None:
    lacking = 3
    scene.begun = {"values": [1.0] * 3 + [0.0] + [1.0] * (len(GENES) - 4)}
    if is_by_place:
        scene.begun = {"detected": [at for at in range(len(GENES)) if at != lacking]}
    generate(page)
    canvas = page.locator("canvas.grid")
    columns, width = canvas.evaluate("(canvas) => [Math.round(canvas.clientWidth / 50), canvas.clientWidth]")
    canvas.hover(position={"x": (lacking + 0.5) * width / columns, "y": 10})
    assert page.inner_text(".gene-name").startswith(GENES[lacking])
    assert page.inner_text(".gene-name").endswith("not measured")
    canvas.hover(position={"x": (lacking + 1.5) * width / columns, "y": 10})
    assert page.inner_text(".gene-name").endswith(" %")


def test_what_a_token_rests_on_is_marked_beside_it(page: Page, scene: Scene) -> None:
    scene.each = {"values": [0] + [1] * 9}
    generate(page)
    page.hover(".token >> nth=2")
    assert page.locator("#tip .absent").count() >= 1
