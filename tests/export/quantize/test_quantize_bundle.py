"""Whole bundles: what comes out runs, says what it lost, and is refused where it should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.bundle import open_bundle, read_manifest
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.errors import BundleError, OutputError, UsageError
from cellscribe.engine.measure import expected_of, real_cells
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.engine.verify import compare, parity_failures, tolerance_of, verify_bundle
from cellscribe.export.quantize.bundle import quantize_bundle

Quantize = Callable[[Path, str], Path]
PRECISIONS = ("fp16-stored", "int8", "int4")
# Least share of equal greedy tokens on the packaged model, and least cosine of its memory.
WORST = {"fp16-stored": (0.999, 0.999999), "int8": (0.99, 0.999), "int4": (0.97, 0.999)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_packaged_model_keeps_its_texts(quantized: Quantize, precision: str) -> None:
    source, folder = packaged_bundle(), quantized(packaged_bundle(), precision)
    manifest, before = read_manifest(folder), read_manifest(source)
    assert (manifest.precision, manifest.schema_version, manifest.name) == (precision, 2, before.name)
    assert sum(one.bytes for one in manifest.files.values()) < 0.7 * sum(one.bytes for one in before.files.values())
    quality, (agreement, cosine) = manifest.quality, WORST[precision]
    assert quality is not None
    assert quality.compared_with == open_bundle(source).hash
    assert (quality.cells, quality.source) == (64, "cells.h5ad")
    assert quality.tokens > 2000
    assert quality.greedy_agreement is not None
    assert quality.greedy_agreement >= agreement
    assert cosine <= quality.memory_min_cosine <= quality.memory_mean_cosine <= 1 + 1e-9
    assert quality.perplexity is not None
    assert quality.perplexity_fp32 is not None
    assert quality.perplexity == pytest.approx(quality.perplexity_fp32, rel=0.01)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_quantised_bundle_passes_its_own_check(quantized: Quantize, precision: str) -> None:
    folder = quantized(packaged_bundle(), precision)
    report = verify_bundle(str(folder))
    assert report.passed
    assert report.parity.near_ties == 0
    assert report.parity.tolerance["logits_max_error"] < {"fp16-stored": 0.02, "int8": 0.6, "int4": 2.0}[precision]


@pytest.mark.parametrize("form", ["tiny_bundle", "tiny_bundle_materialised"])
def test_both_forms_of_cross_attention_run(quantized: Quantize, request: pytest.FixtureRequest, form: str) -> None:
    source = request.getfixturevalue(form)
    quantize = quantized(source, "int4")
    manifest = read_manifest(quantize)
    assert manifest.quality is not None
    assert manifest.quality.greedy_agreement is not None
    assert manifest.quality.greedy_agreement > 0.6  # random weights have none of the redundancy of trained ones
    assert verify_bundle(str(quantize)).passed
    decoder = onnx_weights(quantize / "decoder.onnx")
    bits = {name: found.bits for name in _products(decoder.tensors) if (found := decoder.quantized(name))}
    assert bits.pop("decoder.head.weight") == 8
    assert set(bits.values()) == {4}
    for name in ("encoder.onnx", "cross.onnx") if form.endswith("materialised") else ("encoder.onnx",):
        weights = onnx_weights(quantize / name)
        found = [weights.quantized(one) for one in _products(weights.tensors)]
        assert found
        assert {one.bits for one in found if one} == {8}


def _products(names: Iterable[str]) -> list[str]:
    return [name.removesuffix(".packed") for name in names if name.endswith(".packed")]


def test_a_check_finds_a_wrong_weight(quantized: Quantize, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(quantized(packaged_bundle(), "int8"), tmp_path / "b"))
    found = onnx_weights(folder / "decoder.onnx").quantized("decoder.layers.3.feed_forward.down.weight")
    assert found is not None
    scales = np.memmap(folder / "decoder.onnx.data", np.uint8, "r+")
    at = bytes(scales).find(np.ascontiguousarray(found.scales).tobytes())
    scales[at : at + found.scales.nbytes] = np.frombuffer((found.scales * np.float32(1.5)).tobytes(), np.uint8)
    scales.flush()
    raw = json.loads((folder / "manifest.json").read_text())
    raw["files"]["decoder.onnx.data"] = vars(record(folder / "decoder.onnx.data"))
    (folder / "manifest.json").write_text(json.dumps(raw))
    assert any("logits_max_error" in one for one in verify_bundle(str(folder)).failures)


def test_another_backend_is_held_to_what_was_measured(quantized: Quantize) -> None:
    bundle = open_bundle(quantized(packaged_bundle(), "int8"))
    backend = OnnxRuntimeCpu(bundle)
    batch, source = real_cells(bundle, None)
    assert batch is not None
    parity = compare(bundle, backend, expected_of(bundle, backend, batch), source)
    assert parity.tolerance == tolerance_of(bundle, backend)
    assert parity_failures(parity) == ()
    assert len(parity_failures(replace(parity, greedy_agreement=0.5))) == 1
    silent = replace(bundle, manifest=replace(bundle.manifest, parity=None))
    with pytest.raises(BundleError, match="does not say how exact it is"):
        tolerance_of(silent, backend)


def test_an_encoder_alone_is_quantised(tiny_bundle: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(tiny_bundle, tmp_path / "alone"))
    reference = load_file(alone / "reference.safetensors")
    save_file({k: v for k, v in reference.items() if k not in ("tokens", "logits")}, alone / "reference.safetensors")
    raw = json.loads((alone / "manifest.json").read_text())
    raw |= {"decoder": None, "cross_attention": None, "prompt": None, "tasks": ["embed"]}
    kept = [name for name in raw["files"] if name.startswith(("encoder", "genes", "reference"))]
    raw["files"] = {name: vars(record(alone / name)) for name in kept}
    (alone / "manifest.json").write_text(json.dumps(raw))
    report = quantize_bundle(alone, tmp_path / "int8", "int8")
    quality = report.manifest.quality
    assert quality is not None
    assert quality.greedy_agreement is None
    assert quality.memory_min_cosine > 0.999
    assert verify_bundle(str(tmp_path / "int8")).passed


def test_weights_that_are_kept_are_one_step_finer(tmp_path: Path) -> None:
    keep = ("decoder.layers.0.*", "encoder.layers.2.qkv.weight")
    quantize_bundle(packaged_bundle(), tmp_path / "int4", "int4", keep=keep)
    decoder, encoder = (
        onnx_weights(tmp_path / "int4" / "decoder.onnx"),
        onnx_weights(tmp_path / "int4" / "encoder.onnx"),
    )
    bits = [found.bits for i in (0, 1) if (found := decoder.quantized(f"decoder.layers.{i}.attention.q.weight"))]
    assert bits == [8, 4]
    assert encoder["encoder.layers.2.qkv.weight"].dtype == np.float16
    assert "decoder.layers.0.*" in read_manifest(tmp_path / "int4").notes


@pytest.mark.parametrize(
    ("precision", "keep", "said"),
    [
        ("int3", (), "precision is 'int3'; choose fp16-stored, int8, int4"),
        ("fp16", (), "precision is 'fp16'"),
        ("int4", ("decoder.layers.9.*",), "fits no quantised weight"),
        ("fp16-stored", ("decoder.*",), "fits no quantised weight"),
    ],
)
def test_wrong_wishes_are_refused(tmp_path: Path, precision: str, keep: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        quantize_bundle(packaged_bundle(), tmp_path / "new", precision, keep=keep)
    assert not list(tmp_path.iterdir())


def test_a_target_that_exists_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        quantize_bundle(packaged_bundle(), tmp_path, "int4")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_is_not_fp32_is_refused(tmp_path: Path, precision: str) -> None:
    source = Path(shutil.copytree(packaged_bundle(), tmp_path / "b"))
    raw = json.loads((source / "manifest.json").read_text())
    (source / "manifest.json").write_text(json.dumps(raw | {"precision": precision}))
    with pytest.raises(BundleError, match=f"is {precision}; quantise the fp32 bundle"):
        quantize_bundle(source, tmp_path / "new", "int4")
    assert [one.name for one in tmp_path.iterdir()] == ["b"]


def test_a_damaged_source_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packaged_bundle(), tmp_path / "b"))
    content = bytearray((folder / "decoder.onnx.data").read_bytes())
    content[1000] ^= 1
    (folder / "decoder.onnx.data").write_bytes(content)
    with pytest.raises(BundleError, match="does not have the hash"):
        quantize_bundle(folder, tmp_path / "new", "int4")


@pytest.mark.parametrize("during", ["decoder.onnx", "measuring int4"])
def test_an_interrupt_leaves_nothing(tmp_path: Path, during: str) -> None:
    def interrupt(what: str, _share: float) -> None:
        if what == during:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_bundle(packaged_bundle(), tmp_path / "new", "int4", progress=interrupt)
    assert not list(tmp_path.iterdir())
