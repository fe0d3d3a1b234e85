"""Bundles that read sentences in fewer bits: their sizes, what they say they lost, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.bundle import open_bundle, read_manifest
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.errors import BundleError, InputError, UsageError
from cellscribe.engine.measure_text import follow, real_prompts
from cellscribe.engine.verify_text import forced_logits, text_tolerance, verify_text_bundle
from cellscribe.export.bundle import export_checkpoint
from cellscribe.export.quantize import text_quality
from cellscribe.export.quantize.bundle import quantize_bundle

Quantize = Callable[[Path, str], Path]
PRECISIONS = ("fp16-stored", "int8", "int4")
# Least share of equal greedy tokens and least cosine of embeddings; random weights have no redundancy.
WORST = {"fp16-stored": (0.99, 0.999999), "int8": (0.93, 0.9995), "int4": (0.6, 0.97)}
_SMALL = 4096


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_was_lost_is_measured_and_kept(text_bundle: Path, quantized: Quantize, precision: str) -> None:
    manifest, before = read_manifest(quantized(text_bundle, precision)), read_manifest(text_bundle)
    assert (manifest.precision, manifest.schema_version, before.schema_version) == (precision, 4, 3)
    assert manifest.quality is None
    quality, (agreement, cosine) = manifest.text_quality, WORST[precision]
    assert quality is not None
    assert quality.compared_with == open_bundle(text_bundle).hash
    assert (quality.prompts, quality.source) == (16, "cells.h5ad")
    assert quality.tokens > 300
    assert agreement <= quality.greedy_agreement <= 1
    assert cosine <= quality.embedding_min_cosine <= quality.embedding_mean_cosine <= 1 + 1e-9
    assert quality.perplexity == pytest.approx(quality.perplexity_fp32, rel=0.4 if precision == "int4" else 0.05)
    assert quality.perplexity_fp32 > 1


def test_the_loss_is_what_a_count_by_hand_gives(text_bundle: Path, quantized: Quantize) -> None:
    """Agreement and perplexity anew, from whole logits along the texts of fp32."""
    before, after = open_bundle(text_bundle), open_bundle(quantized(text_bundle, "int4"))
    kept = after.manifest.text_quality
    assert kept is not None
    assert before.manifest.decoder is not None
    count = min(48, before.manifest.decoder.max_positions // 4)
    prompts = list(real_prompts(before, None, 16, count).tokens)
    tokens = follow(OnnxRuntimeText(before, 2), prompts, count).tokens
    logits, found = (forced_logits(OnnxRuntimeText(one, 2), prompts, tokens) for one in (before, after))
    assert (logits.argmax(-1) == tokens).all()
    ends = np.isin(tokens, before.manifest.sentences.eos_token_ids if before.manifest.sentences else ())
    counts = np.cumsum(ends, 1) - ends == 0
    assert kept.tokens == counts.sum()
    assert kept.greedy_agreement == pytest.approx((found.argmax(-1) == tokens)[counts].mean())
    for said, whole in ((kept.perplexity_fp32, logits), (kept.perplexity, found)):
        wide = whole.astype(np.float64)
        logprobs = np.take_along_axis(wide, tokens[..., None], -1)[..., 0] - np.log(np.exp(wide).sum(-1))
        assert said == pytest.approx(np.exp(-logprobs[counts].mean()), rel=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_files_shrink_as_the_bits_say(text_bundle: Path, quantized: Quantize, precision: str) -> None:
    """Every tensor costs what its bits say, of the names that a rule by hand gives."""
    model = onnx.load(str(text_bundle / "decoder.onnx"), load_external_data=False)
    stored = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in stored}
    untied = "decoder.head.weight" in shapes
    expected = 0
    for name, shape in shapes.items():
        is_table = name in ("decoder.embedding.weight", "decoder.positions.weight")
        is_product = len(shape) == 2 and name.endswith(".weight") and not is_table
        if is_table:
            expected += int(np.prod(shape)) * 2
        if (is_product or (name == "decoder.embedding.weight" and not untied)) and precision != "fp16-stored":
            k, n = shape if is_product else shape[::-1]
            is_head = name in ("decoder.head.weight", "decoder.embedding.weight")
            bits = 4 if precision == "int4" and not is_head else 8
            block = 64 if bits == 8 and k % 64 == 0 else 32
            expected += n * -(-k // block) * (block * bits // 8 + 4)
        elif is_product:
            expected += int(np.prod(shape)) * (2 if np.prod(shape) >= _SMALL else 4)
        elif not is_table:
            expected += int(np.prod(shape)) * 4
    found = (quantized(text_bundle, precision) / "decoder.onnx.data").stat().st_size
    assert expected <= found <= expected + 128 * len(shapes)  # each begins where a cache line does
    assert found < 0.55 * (text_bundle / "decoder.onnx.data").stat().st_size


def test_biases_and_norms_stay_and_the_head_keeps_eight_bits(text_bundle: Path, quantized: Quantize) -> None:
    weights, before = (onnx_weights(at / "decoder.onnx") for at in (quantized(text_bundle, "int4"), text_bundle))
    names = [name for name in before.tensors if name.endswith(".bias") or ".norm" in name or ".post" in name]
    assert names
    for name in [*names, *(name for name in ("decoder.cos", "decoder.sin") if name in before.tensors)]:
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], before[name])
    head = "decoder.head.weight" if before.get("decoder.head.weight") is not None else "decoder.embedding.weight"
    bits = {name: found.bits for name in before.tensors if (found := weights.quantized(name))}
    assert bits.pop(head) == 8
    assert set(bits.values()) == {4}
    assert weights["decoder.embedding.weight"].dtype == np.float16  # rows are looked up in half


@pytest.mark.slow
def test_an_export_is_the_quantised_bundle(
    text_checkpoint: Path, text_bundle: Path, quantized: Quantize, tmp_path: Path
) -> None:
    said: list[str] = []
    out = tmp_path / text_bundle.name  # named as the other one is
    report = export_checkpoint(text_checkpoint, out, family="c2s", precision="int4", progress=said.append)
    assert "quantising: measuring int4" in said
    assert "against fp32 on 16 prompts (cells.h5ad" in report.lines()[-1]
    assert [one.name for one in tmp_path.iterdir()] == [out.name]
    assert {one.name for one in out.iterdir()} == {*report.manifest.files, "manifest.json"}
    wanted, found = read_manifest(quantized(text_bundle, "int4")), read_manifest(out)
    assert wanted.text_quality is not None
    assert found.text_quality is not None
    assert found.files["decoder.onnx.data"] == wanted.files["decoder.onnx.data"]
    measured = replace(found.text_quality, compared_with=wanted.text_quality.compared_with)
    assert replace(found, files=wanted.files, text_quality=measured) == wanted


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "auto"])
def test_a_quantised_bundle_passes_its_own_check(
    text_bundle: Path, quantized: Quantize, precision: str, backend: str
) -> None:
    bundle = open_bundle(quantized(text_bundle, precision))
    report = verify_text_bundle(bundle, backend, 2)
    assert report.passed, report.failures
    assert report.parity.near_ties == 0
    assert report.parity.tolerance == text_tolerance(bundle)
    assert "of greedy steps at least" in report.lines()[2]
    silent = replace(bundle, manifest=replace(bundle.manifest, text_parity=None))
    with pytest.raises(BundleError, match="does not say how exact it is"):
        verify_text_bundle(silent, backend, 2)


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "auto"])
def test_a_check_finds_a_wrong_weight(text_bundle: Path, quantized: Quantize, tmp_path: Path, backend: str) -> None:
    folder = Path(shutil.copytree(quantized(text_bundle, "int8"), tmp_path / "b"))
    found = onnx_weights(folder / "decoder.onnx").quantized("decoder.layers.1.feed_forward.down.weight")
    assert found is not None
    content = bytearray((folder / "decoder.onnx.data").read_bytes())
    at = content.find(np.ascontiguousarray(found.scales).tobytes())
    # Not all of them by one factor, which the norm after the product would take out again.
    content[at : at + found.scales.nbytes] = np.roll(found.scales, 1, 0).tobytes()
    (folder / "decoder.onnx.data").write_bytes(content)
    raw = json.loads((folder / "manifest.json").read_text())
    raw["files"]["decoder.onnx.data"] = vars(record(folder / "decoder.onnx.data"))
    (folder / "manifest.json").write_text(json.dumps(raw))
    failures = verify_text_bundle(open_bundle(folder), backend, 2).failures
    assert any("logits_max_error" in one for one in failures)


def test_what_no_longer_does_it_is_refused(text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_quality, "WORST_COSINE", 1.5)
    with pytest.raises(BundleError, match=r"does not do what the original does \(cosine 0\.9.*choose int8"):
        quantize_bundle(text_bundle, tmp_path / "new", "int4")
    assert not list(tmp_path.iterdir())


def test_wrong_wishes_are_one_sentence(
    text_checkpoint: Path, text_bundle: Path, quantized: Quantize, tmp_path: Path
) -> None:
    for wish in ("int3", "bf16"):
        with pytest.raises(UsageError, match=f"precision is '{wish}'; choose fp32, fp16, fp16-stored, int8, int4"):
            export_checkpoint(text_checkpoint, tmp_path / "new", family="c2s", precision=wish)
        with pytest.raises(UsageError, match=f"precision is '{wish}'; choose fp16-stored, int8, int4"):
            quantize_bundle(text_bundle, tmp_path / "new", wish)
    with pytest.raises(BundleError, match="is int8; quantise the fp32 bundle of the same model"):
        quantize_bundle(quantized(text_bundle, "int8"), tmp_path / "new", "int4")
    with pytest.raises(UsageError, match="fits no quantised weight"):
        quantize_bundle(text_bundle, tmp_path / "new", "int4", keep=("decoder.layers.9.*",))
    with pytest.raises(InputError, match="check the name"):
        quantize_bundle(text_bundle, tmp_path / "new", "int4", cells=tmp_path / "no.h5ad")
    assert not list(tmp_path.iterdir())
