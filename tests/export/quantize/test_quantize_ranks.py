"""Bundles that read ranks in fewer bits: what they say they lost, weights that stay shared, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.bundle.manifest import read_manifest
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.errors import UsageError
from cellscribe.engine.verify_match import verify_match_bundle
from cellscribe.export.quantize.bundle import quantize_bundle

Quantize = Callable[[Path, str], Path]


@pytest.mark.parametrize(("precision", "cosine", "apart"), [("int8", 0.999, 0.1), ("fp16-stored", 0.999999, 1e-3)])
def test_what_was_lost_is_measured_and_kept(
    tiny_langcell: Path, quantized: Quantize, precision: str, cosine: float, apart: float
) -> None:
    folder = quantized(tiny_langcell, precision)
    manifest = read_manifest(folder)
    quality = manifest.match_quality
    assert (manifest.precision, manifest.schema_version) == (precision, 5)
    assert quality is not None
    assert (quality.cells, quality.texts, quality.source) == (16, 8, "cells.h5ad")
    assert quality.compared_with == open_bundle(tiny_langcell).hash
    assert cosine <= quality.vectors_min_cosine <= quality.vectors_mean_cosine <= 1 + 1e-9
    assert quality.match_max_error is not None
    assert 0 < quality.match_max_error <= apart
    assert "of 8 texts the same is best for" in quality.words()
    report = verify_match_bundle(open_bundle(folder), "onnxruntime-cpu", 2)
    assert report.passed, report.failures
    before, after = (sum(one.bytes for one in read_manifest(at).files.values()) for at in (tiny_langcell, folder))
    assert after < 0.7 * before


def test_weights_of_both_graphs_stay_shared(tiny_langcell: Path, quantized: Quantize) -> None:
    folder = quantized(tiny_langcell, "int8")
    text, match = (onnx_weights(folder / name) for name in ("text.onnx", "match.onnx"))
    name = "text.layers.1.qkv.weight"
    mine, theirs = text.quantized(name), match.quantized(name)
    assert mine is not None
    assert theirs is not None
    np.testing.assert_array_equal(mine.packed, theirs.packed)
    assert (folder / "match.onnx.data").stat().st_size < 0.5 * (folder / "text.onnx.data").stat().st_size


def test_four_bits_are_refused(tiny_langcell: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which int8 and fp16-stored serve"):
        quantize_bundle(tiny_langcell, tmp_path / "new", "int4")
    assert not list(tmp_path.iterdir())
