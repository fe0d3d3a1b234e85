"""Everything that the page itself writes is in the language that was chosen."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from canned_answers import GENES, TEXTS
from fake_page_server import Scene
from page_driving import generate

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Names and units that Chinese keeps, and what came from the server: names of the model and of its device.
KEPT = {"Cellscribe", "English", "A", "B", "Top-p", "UMAP", "PCA", "JSON", "API", "h5ad", "ms", "MB"}
SHOWN = """() => {
  const given = ".text, .option, .legend button, .gene, #command, #source, #colour, #model, .slot .id, .group, #tip b";
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT);
  while (walk.nextNode()) {
    const element = walk.currentNode;
    if (!element.checkVisibility() || element.closest("script, noscript") || element.closest(given)) continue;
    for (const name of ["aria-label", "title", "placeholder"]) found.push(element.getAttribute(name) ?? "");
    for (const node of element.childNodes) if (node.nodeType === Node.TEXT_NODE) found.push(node.data);
  }
  return found.filter((text) => text.trim());
}"""


def latin(page: Page, *known: str) -> set[str]:
    """Return the words in Latin letters that the page shows or tells a screen reader, but names that it was given."""
    shown = page.evaluate(SHOWN)
    assert len(shown) > 20
    sentences = (sentence for text in TEXTS for sentence in re.split(r"(?<=\.) ", text))  # as they are read out
    names = {*GENES, *known, *sentences, *page.locator(".slot .id").all_text_contents()}
    words: set[str] = set()
    for text in shown:
        for name in sorted((name for name in names if name in text), key=len, reverse=True):
            text = text.replace(name, " ")
        words |= set(re.findall(r"[A-Za-z][A-Za-z0-9-]*", text))
    return words - KEPT


@pytest.fixture
def chinese(open_page: Callable[..., Page]) -> Page:
    page = open_page(locale="zh-CN")
    page.wait_for_selector(".option")
    return page


def test_before_and_after_generating_nothing_is_english(chinese: Page, scene: Scene) -> None:
    assert latin(chinese) == set()
    scene.record = {"values": [0, 3, None, *range(1, 8)]}
    chinese.check("#compare")
    assert latin(chinese) == set()
    chinese.click("#list .option >> nth=4")
    chinese.check("input[value=top-p]", force=True)
    generate(chinese)
    chinese.hover(".token >> nth=3")
    assert chinese.is_visible("#tip")
    assert latin(chinese) == set()
    chinese.fill("#find", "nothing is called so")
    assert latin(chinese) == set()


@pytest.mark.parametrize(
    ("kind", "chinese_kind"),
    [("PCA of vectors", "向量的 PCA"), ("force-directed graph", "力导向图"), ("t-SNE", "t-SNE"), ("UMAP", "UMAP")],
)
def test_maps_are_named_in_the_language_and_follow_it(
    open_page: Callable[..., Page], scene: Scene, kind: str, chinese_kind: str
) -> None:
    places = {"x": [0.0, 1.0], "y": [0.0, 1.0]}
    scene.cells = {"ids": ["a", "b"], "n_cells": 2, "groups": None, "map": {"kind": kind, **places}}
    page = open_page(locale="zh-CN")
    page.wait_for_selector(".option")
    assert page.inner_text("#map-kind") == chinese_kind
    assert chinese_kind in str(page.get_attribute("#map", "aria-label"))
    page.select_option("#language", "en")
    assert page.inner_text("#map-kind") == kind


def test_what_is_known_of_the_genes_is_said_in_the_language(chinese: Page) -> None:
    assert chinese.inner_text("#cells-note") == "共 765 个基因，模型识别其中 256 个。"
    chinese.select_option("#language", "en")
    assert chinese.inner_text("#cells-note") == "The model knows 256 of the 765 genes."


def test_the_servers_sentences_are_labelled(chinese: Page, scene: Scene) -> None:
    message = "The queue holds 512 cells."
    scene.refuse(429, "rate_limit_error", message, Retry_After="3")
    chinese.click("#generate")
    assert chinese.inner_text(".error p") == f"服务器的回答：{message}"
    assert latin(chinese, message) == set()
    chinese.select_option("#language", "en")
    assert chinese.inner_text(".error p") == message
    chinese.select_option("#language", "zh")
    scene.record = {"status": "failed: no gene is known", "text": ""}
    chinese.click("text=关闭")
    generate(chinese)
    assert chinese.inner_text(".column .invalid") == "服务器的回答：no gene is known"


def test_the_pages_own_sentences_follow_the_language(chinese: Page) -> None:
    chinese.fill("[name=seed]", "1.5")
    chinese.click("#generate")
    file: dict[str, Any] = {"name": "x.csv", "mimeType": "text/csv", "buffer": b"x"}
    chinese.set_input_files("#file", file)
    assert chinese.inner_text("#invalid").startswith("随机种子")
    assert latin(chinese, "x.csv", "AnnData", "write_h5ad") == set()
    chinese.select_option("#language", "en")
    assert chinese.inner_text("#invalid").startswith("Seed must be")
    assert "is not an .h5ad file" in chinese.inner_text(".error p")


def test_labels_of_cells_and_a_model_without_a_page_are_in_the_language(
    open_page: Callable[..., Page], scene: Scene
) -> None:
    scene.tasks = ("annotate",)
    page = open_page(locale="zh-CN")
    page.wait_for_selector(".option")
    page.click("#list .option >> nth=0")
    page.click("#annotate-go")
    page.wait_for_selector("td")
    picked = page.inner_text("#annotate-picked")
    assert latin(page, picked, "monocyte") == set()
