"""Words of genes."""

from __future__ import annotations

import re

import pytest

from cellscribe.engine.errors import InputError
from cellscribe.engine.sentences import SentenceGenes


def test_names_that_are_alike_in_upper_case_are_all_named() -> None:
    with pytest.raises(InputError, match=r"2 gene names twice in upper case \(C2ORF15 and C2orf15, A and a and A"):
        SentenceGenes.of(["C2ORF15", "C2orf15", "A", "a", "A", "B"])
    with pytest.raises(InputError, match=re.escape("rename or drop all but one column of each")):
        SentenceGenes.of(["A", "A"])


def test_names_stay_as_they_were() -> None:
    genes = SentenceGenes.of(["C1orf159", "Cd3d", "B"])
    assert genes.words == ("C1ORF159", "CD3D", "B")
    assert genes.names == ("C1orf159", "Cd3d", "B")
    assert genes.at([2, 0]).names == ("B", "C1orf159")
    assert genes == SentenceGenes.of(["C1ORF159", "CD3D", "B"])
    assert SentenceGenes(("A",)).names == ("A",)
