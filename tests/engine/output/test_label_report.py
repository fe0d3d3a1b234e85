from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.labelling.finish import finish_of
from cellscribe.engine.labels import Labelled, Labels
from cellscribe.engine.output.dot_plot import dot_plot
from cellscribe.engine.output.label_report import LabelReport, label_report_html, write_label_report
from cellscribe.engine.output.run import Run
from cellscribe.engine.types import Description

BRAND = 2  # circles of the mark at the top
EVIL = "<script>alert(1)</script> & \x1b[31m"


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


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    counts = np.zeros((6, 4), np.float32)
    counts[:3, 0], counts[3:, 1], counts[:, 2] = 5, 4, 1
    obs = pd.DataFrame({"known": ["B", "B", "T", "T", "T", EVIL]}, index=[f"c{i}" for i in range(6)])
    path = tmp_path / "cells.h5ad"
    ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=["CD79A", "CD3D", "ACTB", "X"])).write_h5ad(path)
    return path


@pytest.fixture
def run() -> Run:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [np.nan, np.nan]], np.float32)
    chosen = ("B", "B", "B", EVIL, EVIL, "")
    texts = [Description(f"c{i}", one) for i, one in enumerate(chosen[:-1])]
    failed = Description("c5", status="failed: nothing is expressed")
    labels = Labelled.of_scores(Labels(("B", EVIL), ("", "")), chosen, scores)
    return Run(np.arange(6), (*texts, failed), labels=labels, settings={"input": "cells.h5ad"})


def _page(run: Run, source: CellSource, **wanted: object) -> Tags:
    return Tags(label_report_html(run, source, LabelReport(**wanted)))  # type: ignore[arg-type]


def test_labels_confusion_dots_and_failures(run: Run, cells: Path) -> None:
    with open_cells(cells) as source:
        page = _page(run, source, truth="known")
    for text in ("5 cells labelled", "could not be labelled", "Known labels (known)", "CD79A", "c5", "macro F1"):
        assert text in page.text
    assert "script" not in page.names
    assert "<script>alert(1)</script>" in page.text
    assert page.names.count("circle") - BRAND == 2 * 2  # two labels by one marker each
    assert "B, CD79A: 100 % express it" in page.text
    assert page.names.count("section") == 4


def test_given_genes_are_drawn(run: Run, cells: Path) -> None:
    with open_cells(cells) as source:
        page = _page(run, source, genes={"B": ["ACTB", "nowhere"]}, genes_from="mine.json")
        assert "The genes are those of mine.json." in page.text
        assert page.names.count("circle") - BRAND == 2
        with pytest.raises(InputError, match=r"none of the genes in mine\.json"):
            _page(run, source, genes={"B": ["nowhere"]}, genes_from="mine.json")


def test_the_page_stands_alone_and_free_answers_have_one(run: Run, cells: Path, tmp_path: Path) -> None:
    assert run.labels is not None
    free = replace(run, labels=Labelled(None, run.labels.chosen, run.labels.score))
    with open_cells(cells) as source:
        write_label_report(free, source, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert not re.search(r"url\(|@import|https?://|<script|<link", html)
    assert "mean margin" not in html


def test_dots_grow_with_the_share_of_cells() -> None:
    svg = dot_plot(["B"], ["X", "Y"], np.array([[1.0, 0.25]]), np.array([[2.0, 0.0]]))
    radii = [float(one) for one in re.findall(r' r="([\d.]+)"', svg)]
    assert radii == [10.0, 5.0]
    assert re.findall(r'fill-opacity="([\d.]+)"', svg) == ["1.000", "0.080"]


def test_wishes_that_miss_another_one() -> None:
    with pytest.raises(UsageError, match="are shown in the report"):
        finish_of(truth="known")
    with pytest.raises(UsageError, match="is of clusters"):
        finish_of(min_share=0.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'threshhold'"):
        finish_of(threshhold=0.5)  # type: ignore[call-arg]
    assert finish_of().voting is None


def test_a_missing_column_is_found_before_any_cell_is_labelled(cells: Path, tmp_path: Path) -> None:
    with open_cells(cells) as source:
        with pytest.raises(InputError, match="no obs column 'kind'"):
            finish_of(report=tmp_path / "out.html", truth="kind").check(source)
        with pytest.raises(UsageError, match="no ending that is understood"):
            finish_of(report=tmp_path / "out.txt").check(source)
