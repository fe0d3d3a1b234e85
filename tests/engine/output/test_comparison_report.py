from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cellscribe.engine.instruct.compare_settings import CompareSettings
from cellscribe.engine.instruct.comparison import Comparison, compare_cells
from cellscribe.engine.output import comparison_report as module
from cellscribe.engine.output.cell_map import OTHERS, MapPoints, cell_map
from cellscribe.engine.output.comparison_report import comparison_report_html, write_comparison_report
from cellscribe.engine.output.dot_plot import dot_plot

EVIL = "<script>alert(1)</script> & \x1b[31m"
BRAND = 2  # circles of the mark at the top


class Tags(HTMLParser):
    """Collects tags, and the text within them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def _cells(seed: int, num_cells: int = 20) -> ad.AnnData:
    kinds = np.array([EVIL, "B cell"] * (num_cells // 2))
    rate = np.ones((num_cells, 60))
    rate[kinds == "B cell", :20] = rate[kinds != "B cell", 20:40] = 9
    obs = pd.DataFrame({"cell_type": kinds}, index=[f"c{i}" for i in range(num_cells)])
    counts = np.random.default_rng(seed).poisson(rate).astype(np.float32)
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(60)]))


@pytest.fixture(scope="module")
def found() -> Comparison:
    """A comparison whose map is made by hand."""
    made = compare_cells(_cells(0), _cells(1), settings=CompareSettings(neighbours=(5, 10), has_map=False))
    places = np.random.default_rng(2).normal(size=(2, 20, 2))
    return replace(made, map=made.components, published=made.components, places=(places[0], places[1]))


def test_the_page_has_figures_genes_map_and_types(found: Comparison) -> None:
    html = comparison_report_html(found)
    page = Tags(html)
    assert page.names.count("section") == 4
    for words in (
        "20 generated cells against 20 real ones",
        "60 names that both have",
        "Reach",
        "map published",
        "reach, 1 if alike",
    ):
        assert words in " ".join(page.text.split())
    assert "script" not in page.names
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in html
    assert "B cell, generated, G" in page.text
    assert page.names.count("circle") - BRAND == 2 * 2 * len(found.dots.genes)
    assert html.count("h0") == 20 + 2 * 20  # generated ones have a ring


def test_what_is_missing_is_left_out(found: Comparison) -> None:
    page = Tags(comparison_report_html(replace(found, map=None, published=None, places=None, notes=("Why not.",))))
    assert page.names.count("section") == 3
    assert "Why not." in page.text
    assert "map published" not in " ".join(page.text.split())


def test_types_of_one_side_have_dashes(found: Comparison) -> None:
    made = _cells(0)
    made.obs["cell_type"] = ["B cell"] * 19 + ["other"]
    settings = CompareSettings(neighbours=(5,), has_map=False)
    page = Tags(comparison_report_html(compare_cells(made, _cells(1), settings=settings)))
    assert "other 0 1 0.0\N{NARROW NO-BREAK SPACE}% – – –" in page.text


def test_figures_that_cannot_vary_are_no_headlines(found: Comparison) -> None:
    def heads(one: Comparison) -> str:
        return " ".join(label for _, label in module._summary(one))

    assert "pKNN" in heads(found)
    assert "sKNN" in heads(found)
    made = _cells(0)
    settings = CompareSettings(neighbours=(5,), has_map=False, same_types=True)
    asked = made[made.obs["cell_type"] == "B cell"].copy()
    assert "sKNN" not in heads(compare_cells(asked, _cells(1), settings=settings))
    assert "pKNN" in heads(compare_cells(asked, _cells(1), settings=settings))
    real = _cells(1)
    real.obs["cell_type"] = "B cell"
    assert "pKNN" not in heads(compare_cells(made, real, settings=settings))


def test_the_page_stands_alone(found: Comparison, tmp_path: Path) -> None:
    write_comparison_report(found, tmp_path / "out.html")
    html = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://|<script|<link|<img", html)
    assert [one.name for one in tmp_path.iterdir()] == ["out.html"]


def test_many_cells_are_drawn_by_name(found: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_POINTS", 7)
    html = comparison_report_html(found)
    assert html.count("h0") == 7 + 2 * 7
    assert "7 of 20 real cells are drawn." in Tags(html).text
    side = found.generated
    order = np.arange(20)[::-1]
    turned = replace(side, cell_ids=tuple(side.cell_ids[i] for i in order), types=tuple(side.types[i] for i in order))
    assert found.places is not None
    one, other = module._points(side, found.places[0], 0), module._points(turned, found.places[0][order], 0)
    assert sorted(map(tuple, one.places.tolist())) == sorted(map(tuple, other.places.tolist()))


def test_a_map_keeps_its_shape_and_its_points_inside() -> None:
    places = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 5.0]])
    svg = cell_map(MapPoints(places, ["A", "A", "B"]), MapPoints(places[:1], ["C"]), ["A"])
    at = [tuple(map(float, one)) for one in re.findall(r"M([\d.]+) ([\d.]+)h0", svg)]
    width, height = (float(one) for one in re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg)[0])
    assert all(0 < x < width and 0 < y < height for x, y in at)
    by_type = dict(re.findall(r"<title>(.*?)</title>(.*?)</g>", svg))
    assert set(by_type) == {"other types, real", "A, real", "other types, generated"}
    (left, right), (top,) = (
        [tuple(map(float, one)) for one in re.findall(r"M([\d.]+) ([\d.]+)h0", by_type[name])]
        for name in ("A, real", "other types, real")
    )
    assert right[0] - left[0] == pytest.approx(2 * (right[1] - top[1]), abs=0.2)  # y grows upwards, as in the data
    assert OTHERS in by_type["other types, real"]


def test_rows_of_a_type_stand_together() -> None:
    ones = np.ones((4, 1))
    heights = [
        float(one) for one in re.findall(r'cy="([\d.]+)"', dot_plot(list("abcd"), ["G"], ones, ones, together=2))
    ]
    steps = np.diff(heights)
    assert steps[0] == steps[2] < steps[1]


def test_points_on_one_place_are_drawn() -> None:
    at = MapPoints(np.ones((3, 2)), ["A"] * 3)
    assert "nan" not in cell_map(at, at, ["A"])
