from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from cellscribe.engine.output.report import report_html, write_report
from cellscribe.engine.output.run import Run
from cellscribe.engine.types import Description, TopGenes


class Page(HTMLParser):
    """Collects tags and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)> & \"quoted\" $title \x1b[31m\u202eabc"


def test_untrusted_names_and_texts_are_escaped(run: Run) -> None:
    evil = Description(
        EVIL, text=f"{EVIL} GENE<b>", top_genes=TopGenes(("GENE<b>",), (1.0,), (0,)), named_genes=("GENE<b>",)
    )
    html = report_html(
        replace(run, descriptions=(evil, replace(evil, status=f"failed: {EVIL}")), settings={"input": EVIL})
    )
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "img" not in {tag for tag, _ in page.tags}
    assert "<script>alert('x')</script>" in page.text
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_the_page_stands_alone(run: Run) -> None:
    page = Page(report_html(run))
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "img", "object")
        assert not {"src", "href", "srcset"} & attributes.keys()
    assert not re.search(r"url\(|@import|https?://", report_html(run))
    assert "default-src 'none'" in report_html(run)


def test_cells_genes_and_settings_are_shown(run: Run) -> None:
    html = report_html(run)
    text = Page(html).text
    assert "<mark>GENE3</mark>" in html
    for words in (
        "2 cells described",
        "cell-4",
        "Not described: all counts are zero.",
        "11 of 12 genes matched (92 %).",
        "greedy",
    ):
        assert words in text
    widths = [float(one) for one in re.findall(r"width:([\d.]+)%", html.partition("<main>")[2])]
    assert widths == [100.0, 50.0, 100.0, 50.0, 33.3]


def test_many_cells_are_cut_and_said(run: Run) -> None:
    text = Page(report_html(run, max_cells=1)).text
    assert "The first 1 of 3 cells are shown." in text
    assert "cell-6" not in text


def test_zero_weights_and_no_genes_do_not_break_it(run: Run) -> None:
    bare = Description("a", text="Nothing.", top_genes=TopGenes(("G",), (0.0,), (0,)))
    html = report_html(replace(run, descriptions=(bare, Description("b", text="No genes."))))
    assert "width:0.0%" in html


def test_pools_are_named(pools: Run) -> None:
    assert "pooled by kind" in report_html(pools)
    assert "2 pools described" in report_html(pools)


def test_the_file_is_utf8(run: Run, tmp_path: Path) -> None:
    write_report(run, tmp_path / "out.html")
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == report_html(run)
