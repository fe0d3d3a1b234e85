from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellscribe.engine.decode.evidence import named_genes
from cellscribe.engine.output.running import RunningText
from cellscribe.engine.output.text import gene_spans, printable, without_label
from cellscribe.engine.types import Piece, TopGenes


@pytest.mark.parametrize(
    ("text", "genes", "found"),
    [
        ("CD8A, not CD8A1 or xCD8A", ["CD8A"], ["CD8A"]),
        ("HLA-A2 of HLA", ["HLA-A", "HLA"], ["HLA"]),
        ("HLA-DRA and HLA-C", ["HLA-C", "HLA-DRA"], ["HLA-DRA", "HLA-C"]),
        ("at rest; REST", ["REST"], ["REST"]),
        ("a (B.1) c", ["B.1"], ["B.1"]),
        ("a B21 c", ["B.1"], []),
        ("nothing", [], []),
    ],
)
def test_genes_are_found_as_words(text: str, genes: list[str], found: list[str]) -> None:
    assert [part for part, is_gene in gene_spans(text, genes) if is_gene] == found


def test_marks_agree_with_the_count_of_named_genes() -> None:
    text, genes = "CD8A-high HLA-DRA, LYZ. rest (B2M) HLA-B", ("CD8A", "HLA-DRA", "LYZ", "REST", "B2M", "HLA")
    marked = {part for part, is_gene in gene_spans(text, genes) if is_gene}
    assert marked == set(named_genes(text, genes))


@given(st.text(), st.lists(st.text(max_size=5), max_size=5))
def test_pieces_join_to_the_text(text: str, genes: list[str]) -> None:
    assert "".join(part for part, _ in gene_spans(text, genes)) == text


def test_control_characters_are_replaced() -> None:
    assert printable("a\x1b[2Jb\r\x07\u202ec\n\td") == "a\ufffd[2Jb\ufffd\ufffd\ufffdc\n\td"


def test_a_running_text_ends_as_its_last_piece_says() -> None:
    running = RunningText("cell")
    running.add(Piece(" High", 1, -0.5, TopGenes(("A",), (1.0,), (0,)), TopGenes(("A",), (1.0,), (0,))))
    running.add(Piece(" B.", 2, -1.5, TopGenes(("B",), (0.9,), (1,)), TopGenes(("B", "A"), (0.5, 0.3), (1, 0))))
    one = running.description()
    assert one.text == "High B."
    assert one.top_genes.symbols == ("B", "A")
    assert one.top_genes.weights == pytest.approx((0.5, 0.3))
    assert one.named_genes == ("B",)
    assert one.mean_logprob == -1.0
    assert one.token_ids == (1, 2)


def test_a_label_is_not_said_twice() -> None:
    assert without_label("values", "Values: counts: all.") == "counts: all."
    assert without_label("genes", "Values: counts.") == "Values: counts."
