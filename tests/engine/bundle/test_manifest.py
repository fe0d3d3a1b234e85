from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cellscribe.engine.bundle.figures import Parity, Quality, TextParity, TextQuality
from cellscribe.engine.bundle.manifest import (
    SCHEMA_VERSION,
    FileRecord,
    Manifest,
    Precision,
    PromptRecord,
    SentenceInput,
    read_manifest,
)
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape, EncoderShape
from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.errors import BundleError

MANIFEST = Manifest(
    name="m",
    family="lingocell",
    tasks=("describe", "embed"),
    precision="fp32",
    encoder=EncoderShape(8, 1, 2, 16),
    cells=CellInput("fixed", "list", 4),
    decoder=DecoderShape(20, 8, 2, 1, 2, 1, 4, 16, 64),
    cross_attention=CrossShape("latent", 1, 2, 2, 4, 8, False),
    prompt=PromptRecord("hi", (1, 2), (2,)),
    parity=Parity(2, "real cells", 1e-6, 1.0, 1e-6, 1e-5, 1.0, 32, 0, {"memory_max_error": 1e-3}),
    files={"a.onnx": FileRecord(3, "ff")},
    versions={"python": "3.12"},
)


def write(folder: Path, **changes: object) -> Path:
    raw = json.loads(MANIFEST.to_json())
    raw.update(changes)
    (folder / "manifest.json").write_text(json.dumps(raw))
    return folder


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_manifest(write(tmp_path)) == MANIFEST


def test_a_manifest_says_the_lowest_schema_that_can_read_it(tmp_path: Path) -> None:
    plain = json.loads(MANIFEST.to_json())
    assert plain["schema_version"] == 1
    assert "quality" not in plain  # a release that knows only version 1 refuses entries it does not know
    quality = Quality(4, "real cells", "ab", 0.9995, 0.9999, 0.03, 128, 0.98, 1.4, 1.3)
    quantized = replace(MANIFEST, precision="int4", quality=quality)
    assert json.loads(quantized.to_json())["schema_version"] == 2
    (tmp_path / "manifest.json").write_text(quantized.to_json())
    assert read_manifest(tmp_path) == replace(quantized, schema_version=2)


def test_what_quantising_cost_a_bundle_that_reads_sentences_is_kept(tmp_path: Path) -> None:
    parity = TextParity(4, "sentences of x", 0.3, 0.01, 0.98, 32, 0, {"logits_max_error": 0.6})
    quality = TextQuality(16, "x.h5ad", "ab", 0.9991, 0.9997, 0.02, 700, 0.975, 2.1, 2.0)
    plain = replace(MANIFEST, encoder=None, cells=None, sentences=SentenceInput(200, (0,)), text_parity=parity)
    assert json.loads(plain.to_json())["schema_version"] == 3
    assert "text_quality" not in plain.to_json()
    quantized = replace(plain, precision="int8", text_quality=quality)
    assert json.loads(quantized.to_json())["schema_version"] == 4
    (tmp_path / "manifest.json").write_text(quantized.to_json())
    assert read_manifest(tmp_path) == replace(quantized, schema_version=4)
    assert quality.words() == (
        "16 prompts (x.h5ad; with ONNX Runtime): embedding cosine 0.999700 (at least 0.999100); the token of fp32 at "
        "97.5% of 700 greedy steps, perplexity of its text 2.1 (fp32: 2)"
    )


@pytest.mark.parametrize(("precision", "is_quantized"), [("fp32", False), ("fp16", False), ("int8", True)])
def test_quantised_bundles_are_for_the_cpu(precision: Precision, is_quantized: bool) -> None:
    manifest = replace(MANIFEST, precision=precision)
    assert manifest.is_quantized == is_quantized
    assert ("runs on the CPU" in manifest.gpu_problem) == is_quantized


def test_an_encoder_alone_has_no_decoder(tmp_path: Path) -> None:
    alone = read_manifest(write(tmp_path, decoder=None, cross_attention=None, prompt=None))
    assert alone.decoder is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "upgrade cellscribe"),
        ({"schema_version": None}, "not the manifest"),
        ({"precision": "bf16"}, "precision is 'bf16'"),
        ({"encoder": {"d_model": "x"}}, "encoder.d_model is not int"),
        ({"encoder": 3}, "manifest.encoder is not dict"),
        ({"surprise": 1}, "unknown entry surprise"),
        ({"files": {"a": {"bytes": True, "sha256": ""}}}, "bytes is not int"),
        ({"tasks": "describe"}, "tasks is not list"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        read_manifest(write(tmp_path, **changes))


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    raw = json.loads(MANIFEST.to_json())
    del raw["family"]
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="family"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"3"])
def test_what_is_not_a_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError):
        read_manifest(tmp_path)


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a folder"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
