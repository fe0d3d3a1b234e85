"""Sentences back to expression."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden_sentences import Golden

from cellscribe.engine.errors import InputError
from cellscribe.engine.sentences import Inverse, SentenceGenes, clean_sentences


def test_vectors_of_the_original(golden: Golden) -> None:
    genes = SentenceGenes.of(golden.vocab["vocab_upper"])
    line = Inverse(golden.inverse["slope"], golden.inverse["intercept"])
    cases = golden.inverse["cases"]
    found = line.of_cleaned(clean_sentences([one["sentence"] for one in cases], genes), genes)
    np.testing.assert_array_equal(found.indptr, golden.vectors["indptr"])
    np.testing.assert_array_equal(found.indices, golden.vectors["idx"])
    np.testing.assert_allclose(found.data, golden.vectors["val"], atol=1e-6, rtol=0)


def test_direct_vectors_of_the_original(golden: Golden) -> None:
    genes = SentenceGenes.of(golden.vocab["vocab_upper"])
    line = Inverse(golden.inverse["slope"], golden.inverse["intercept"])
    cases = [one for one in golden.inverse["cases"] if "direct_reconstruction_idx" in one]
    assert len(cases) > 20
    found = line.expression([one["sentence"] for one in cases], genes)
    for i, case in enumerate(cases):
        np.testing.assert_array_equal(found[i].indices, case["direct_reconstruction_idx"], err_msg=case["name"])
        np.testing.assert_allclose(found[i].data, case["direct_reconstruction_val"], atol=1e-6, rtol=0)


def test_no_negatives_leaves_out_what_lies_below_zero() -> None:
    genes = SentenceGenes.of(["a", "b", "c"])
    line = Inverse(-2.0, 0.5)
    both = [line.expression(["a b c"], genes, no_negatives=only).toarray()[0] for only in (False, True)]
    assert (both[0] < 0).sum() == 2
    np.testing.assert_array_equal(both[1], np.maximum(both[0], 0))


def test_nothing_gives_an_empty_row() -> None:
    found = Inverse(-0.6, 1.8).expression(["", "x y"], SentenceGenes.of(["a"]))
    assert found.shape == (2, 1)
    assert found.nnz == 0


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "not json", '{"slope": "x", "intercept": 1}', '{"slope": NaN, "intercept": 1}']
)
def test_a_line_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fit.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"fit\.json"):
        Inverse.read(path)
    with pytest.raises(InputError, match="does not exist"):
        Inverse.read(tmp_path / "nothing.json")


@pytest.mark.parametrize("line", [(0.5, -3.0), (0.5, 3.0), (0.0, 1.0), (-0.5, 0.0), (-0.5, -1.0)])
def test_a_line_that_rises_or_starts_at_nothing_is_refused(tmp_path: Path, line: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"must fall with rank \(slope below 0\) from above zero"):
        Inverse(*line)
    path = tmp_path / "fit.json"
    path.write_text(json.dumps({"slope": line[0], "intercept": line[1]}))
    with pytest.raises(InputError, match=rf"fit\.json: the line through ranks has the slope {line[0]:g} and"):
        Inverse.read(path)


def test_a_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_text(json.dumps({"slope": -0.5, "intercept": 2, "more": 1}))
    assert Inverse.read(path) == Inverse(-0.5, 2.0)
