from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.decode.evidence import GeneAxis, named_genes, top_genes

AXIS = GeneAxis(("<cls>", "CD3D", "LYZ", "HLA-A", "absent"), np.array([-1, 10, 11, 12, -1]))


def test_cls_and_genes_the_file_lacks_never_count() -> None:
    top = top_genes(np.array([9.0, 1.0, 2.0, 1.0, 50.0], dtype=np.float32), AXIS, 10)
    assert top.symbols == ("LYZ", "CD3D", "HLA-A")
    assert top.columns == (11, 10, 12)
    assert top.weights == pytest.approx((0.5, 0.25, 0.25))


def test_count_limits_the_list_but_not_the_shares() -> None:
    top = top_genes(np.array([0.0, 1.0, 2.0, 1.0, 0.0], dtype=np.float32), AXIS, 1)
    assert top.symbols == ("LYZ",)
    assert top.weights == (0.5,)


@pytest.mark.parametrize("count", [1, 2, 7, 39, 40, 41, 100])
def test_the_list_is_the_head_of_all_genes_sorted_and_ties_stand_by_position(count: int) -> None:
    draw = np.random.Generator(np.random.Philox(key=7))
    evidence = draw.integers(0, 6, 40).astype(np.float32)  # many ties, and zeros
    axis = GeneAxis(tuple(f"G{i}" for i in range(40)), np.arange(40))
    sorted_ones = [i for i in sorted(range(40), key=lambda i: -evidence[i]) if evidence[i] > 0]
    assert top_genes(evidence, axis, count).columns == tuple(sorted_ones[:count])


@pytest.mark.parametrize("evidence", [np.zeros(5), np.full(5, np.nan)])
def test_nothing_attended_gives_no_genes(evidence: np.ndarray) -> None:
    assert top_genes(evidence.astype(np.float32), AXIS, 5).symbols == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Marked by CD3D, LYZ and HLA-A.", ("CD3D", "LYZ", "HLA-A")),
        ("CD3DX and XLYZ and HLA-A2 are others", ()),
        ("(CD3D)", ("CD3D",)),
        ("HLA-A", ("HLA-A",)),
        ("cd3d", ()),
    ],
)
def test_genes_are_named_as_whole_words(text: str, found: tuple[str, ...]) -> None:
    assert named_genes(text, ("CD3D", "LYZ", "HLA-A")) == found


def test_a_gene_inside_a_longer_symbol_is_not_named() -> None:
    assert named_genes("HLA-DRA", ("HLA",)) == ()
    assert named_genes("MT-CO1", ("CO1",)) == ()
