from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from canned_answers import TEXTS, cells_answer
from fake_page_server import Scene
from page_driving import finish, generate, texts

if TYPE_CHECKING:
    from playwright.sync_api import Page

CELLS = cells_answer("demo", "cells.h5ad", "cell_type")
IDS: list[str] = CELLS["ids"]
FILE: dict[str, Any] = {"name": "mine.h5ad", "mimeType": "application/x-hdf5", "buffer": b"\x89HDF cells"}
DROP = """([name, bytes]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([new Uint8Array(bytes)], name));
  const drop = new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true });
  document.querySelector("main").dispatchEvent(drop);
}"""


def chosen(page: Page) -> str:
    """Return the cell that the first column is about."""
    return page.inner_text(".column .slot .id >> nth=0")


def test_a_click_on_the_map_takes_the_cell_under_it(page: Page) -> None:
    rightmost = max(range(len(IDS)), key=CELLS["map"]["x"].__getitem__)
    canvas = page.locator("#map")
    x, y = canvas.evaluate(
        """async (canvas, index) => {
          const { CellMap } = await import("/page/map.js");
          const cells = await (await fetch("v1/cells?source=demo")).json();
          const map = { canvas, cells, xs: [Math.min(...cells.map.x), Math.max(...cells.map.x)],
                        ys: [Math.min(...cells.map.y), Math.max(...cells.map.y)] };
          return CellMap.prototype.place.call(map, index);
        }""",
        rightmost,
    )
    canvas.hover(position={"x": x, "y": y})
    assert IDS[rightmost] in page.inner_text("#map-tip")
    canvas.click(position={"x": x, "y": y})
    assert chosen(page) == IDS[rightmost]
    assert IDS[rightmost] in page.inner_text("#command")


def test_the_list_is_searched_and_picked_from_with_keys(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("nk")
    rows = page.locator(".option .group").all_text_contents()
    assert rows
    assert set(rows) == {"CD56+ NK"}
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    active = page.locator("#find").get_attribute("aria-activedescendant")
    page.keyboard.press("Enter")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    assert page.inner_text(f"#{active} .id") == chosen(page)


def test_only_rows_in_sight_are_in_the_document(open_page: Callable[..., Page], scene: Scene) -> None:
    scene.cells = {"ids": [f"cell-{number}" for number in range(20000)], "map": None, "groups": None,
                   "n_cells": 90000, "is_truncated": True}  # fmt: skip
    page = open_page()
    page.wait_for_selector(".option")
    assert "first 20,000 of 90,000" in page.inner_text("#cells-note")
    page.focus("#find")
    page.keyboard.press("ArrowUp")  # the last one
    page.wait_for_selector("text=cell-19999")
    assert page.locator(".option").count() < 60


def test_a_group_of_the_legend_filters_and_another_column_colours(page: Page) -> None:
    page.click("#legend button >> nth=1")
    assert set(page.locator(".option .group").all_text_contents()) == {CELLS["groups"]["names"][1]}
    before = chosen(page)
    page.select_option("#colour", "donor")
    page.wait_for_selector("#legend >> text=donor P")
    assert page.locator("#legend button").count() == 2
    assert chosen(page) == before


@pytest.mark.parametrize("is_dropped", [False, True])
def test_an_uploaded_file_is_shown_described_and_removed(page: Page, scene: Scene, is_dropped: bool) -> None:
    if is_dropped:
        page.evaluate(DROP, [FILE["name"], list(FILE["buffer"])])
    else:
        page.set_input_files("#file", FILE)
    page.wait_for_function("() => document.querySelector('#cells-count').textContent === '30 cells'")
    assert scene.asked("/v1/uploads") == [FILE["buffer"]]
    generate(page)
    assert scene.asked("/v1/describe")[0]["source"] == "up-1"
    assert "describe mine.h5ad " in page.inner_text("#command")
    page.click("#remove")
    page.wait_for_function("() => document.querySelector('#cells-count').textContent === '140 cells'")
    page.wait_for_timeout(50)
    assert ("DELETE", "/v1/uploads/up-1", None) in scene.requests


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("my cells.h5ad", "my cells.h5ad"),
        ('it\'s "mine".h5ad', 'it\'s "mine".h5ad'),
        ("$HOME `id` $(id);&|.h5ad", "$HOME `id` $(id);&|.h5ad"),
        ("~!*?#\\.h5ad", "~!*?#\\.h5ad"),
        ("-x.h5ad", "./-x.h5ad"),
    ],
)
def test_a_name_is_one_word_for_a_shell(open_page: Callable[..., Page], scene: Scene, name: str, word: str) -> None:
    scene.cells = {"name": name}
    page = open_page()
    page.wait_for_selector(".option")
    line = page.text_content("#command")
    said = subprocess.run(["sh", "-c", f'set -- {line}; printf %s "$3"'], capture_output=True, text=True, check=True)
    assert said.stdout == word


@pytest.mark.parametrize(
    ("name", "size", "sentence"), [("cells.csv", 10, "is not an .h5ad file"), ("big.h5ad", 2**20 + 1, "up to 1.0 MB")]
)
def test_a_file_that_cannot_be_used_is_not_sent(page: Page, scene: Scene, name: str, size: int, sentence: str) -> None:
    page.set_input_files("#file", {**FILE, "name": name, "buffer": bytes(size)})
    assert sentence in page.inner_text(".error")
    assert not scene.asked("/v1/uploads")


def test_an_upload_that_the_server_refuses_leaves_the_cells(page: Page, scene: Scene) -> None:
    message = "mine.h5ad is not an HDF5 file: its first bytes are other ones; write it anew with AnnData."
    scene.refuse(422, "invalid_request_error", message)
    page.set_input_files("#file", FILE)
    page.wait_for_selector(".error")
    assert message in page.inner_text(".error")
    assert page.input_value("#source") == "demo"
    generate(page)
    assert texts(page) == [TEXTS[0]]


def test_an_upload_can_be_cancelled(page: Page, scene: Scene) -> None:
    scene.pause_s = 0.5
    page.set_input_files("#file", FILE)
    assert "Uploading and reading mine.h5ad" in page.inner_text("#cells-note")
    page.click("#cancel")
    page.wait_for_selector("#uploading", state="hidden")
    assert page.inner_text("#cells-note") == "The model knows 256 of the 765 genes."
    assert page.locator(".error").count() == 0
    assert page.locator("#source option").count() == 1


def test_picking_another_cell_ends_the_text_of_the_first(page: Page, scene: Scene) -> None:
    scene.delay_s = 0.05
    page.click("#generate")
    page.wait_for_selector(".token")
    page.click("#list .option >> nth=2")
    assert scene.left.wait(5)
    assert page.is_visible(".hint")
    scene.delay_s = 0
    generate(page)
    assert scene.asked("/v1/describe")[-1]["cell_ids"] == [IDS[2]]
    finish(page)


def test_a_model_that_labels_cells_shows_labels(open_page: Callable[..., Page], scene: Scene) -> None:
    scene.tasks = ("annotate", "embed")
    page = open_page()
    page.wait_for_selector(".option")
    assert page.is_hidden("#describe")
    assert page.locator("#annotate-go").is_disabled()
    for row in (0, 2, 3, 2):  # the third is taken back
        page.click(f"#list .option >> nth={row}")
    page.fill("#labels", "B cell\n\n monocyte ")
    page.click("#annotate-go")
    page.wait_for_selector("td")
    assert scene.asked("/v1/annotate") == [
        {"source": "demo", "cell_ids": [IDS[0], IDS[3]], "labels": ["B cell", "monocyte"]}
    ]
    assert page.locator("tbody tr >> nth=1 >> th, td").all_inner_texts()[:3] == [IDS[3], "monocyte", "0.875"]


def test_a_model_that_does_neither_says_what_it_does(open_page: Callable[..., Page], scene: Scene) -> None:
    scene.tasks = ("embed",)
    page = open_page()
    page.wait_for_selector("#no-task:not([hidden])")
    assert "embed" in page.inner_text("#no-task")
