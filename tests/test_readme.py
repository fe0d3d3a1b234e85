"""The front page: no blanks left, no dead links, and the commands that other files take from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "examples/train_demo/README.md",
        "examples/train_c2s/README.md",
        "examples/atlas_cluster/README.md",
        "examples/service/README.md",
    )
]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere_and_no_blank_is_left(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"@[A-Z]{3,}@", text)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_two_commands_are_make_targets() -> None:
    page, makefile = PAGES[0].read_text(encoding="utf-8"), (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in ("demo", "test"):
        assert re.search(rf"^make {command}\b", page, re.MULTILINE)
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


def test_rates_of_sentences_are_those_of_their_result() -> None:
    page = PAGES[0].read_text(encoding="utf-8")
    measured = json.loads((ROOT / "benchmarks/results/sentences.json").read_text(encoding="utf-8"))["cells_per_second"]
    for way in (
        "rank and join, compiled",
        "c2s transform with its fit, in memory",
        "clean and invert, sentences without faults",
        "clean and invert, a gene twice in each",
    ):
        for figure in measured[way].values():
            assert f"{figure:,}" in page, (way, figure)
