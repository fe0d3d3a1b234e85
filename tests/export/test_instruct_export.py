"""An InstructCell's checkpoint becomes a bundle; what does not fit is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the export extra is not installed")

from instruct_bundles import GoldenInstructCell  # noqa: E402

from cellscribe.engine.bundle import open_bundle  # noqa: E402
from cellscribe.engine.bundle.onnx_external import external_data  # noqa: E402
from cellscribe.engine.errors import BundleError, CheckpointError, InputError  # noqa: E402
from cellscribe.engine.verify_instruct import verify_instruct_bundle  # noqa: E402
from cellscribe.export.bundle import export_checkpoint  # noqa: E402
from cellscribe.export.quantize.bundle import quantize_bundle  # noqa: E402


@pytest.fixture(scope="module")
def golden(shared: Path) -> GoldenInstructCell:
    return GoldenInstructCell(shared)


def test_a_bundle_says_what_it_is(instruct_bundle: Path, golden: GoldenInstructCell) -> None:
    manifest = open_bundle(instruct_bundle).manifest
    assert (manifest.family, manifest.schema_version) == ("instructcell", 6)
    assert manifest.tasks == ("annotate", "ask", "generate")
    assert manifest.instruct is not None
    assert (manifest.instruct.placeholder_id, manifest.instruct.signal_id) == (399, 400)
    assert manifest.tower is not None
    assert (manifest.tower.n_genes, manifest.tower.n_queries) == (500, 8)
    assert open_bundle(instruct_bundle).vocabulary.input_genes == tuple(golden.genes)
    assert manifest.instruct_parity is not None
    assert manifest.instruct_parity.logits_max_error < 1e-3


def test_the_embedding_is_stored_once(instruct_bundle: Path) -> None:
    files = {one.location for one in external_data(instruct_bundle / "decoder.onnx")}
    assert files == {"decoder.onnx.data", "encoder.onnx.data"}


def test_a_quantised_bundle_knows_what_that_cost(instruct_bundle: Path, tmp_path: Path) -> None:
    report = quantize_bundle(instruct_bundle, tmp_path / "int8", "int8")
    quality = report.manifest.instruct_quality
    assert quality is not None
    assert quality.features_min_cosine > 0.99
    assert quality.greedy_agreement > 0.8
    assert "cosine of features" in report.lines()[-1]
    bundle = open_bundle(tmp_path / "int8")
    for backend in ("onnxruntime-cpu", "auto"):
        told = verify_instruct_bundle(bundle, backend)
        assert told.passed, told.lines()


def test_a_checkpoint_without_its_genes_is_refused(golden: GoldenInstructCell, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the list of genes has 18,961 and the checkpoint reads 500"):
        export_checkpoint(golden.checkpoint, tmp_path / "b", family="instructcell")
    (tmp_path / "genes.txt").write_text("A\nA\n")
    with pytest.raises(InputError, match="names the gene A twice"):
        export_checkpoint(golden.checkpoint, tmp_path / "b", family="instructcell", genes=tmp_path / "genes.txt")
    assert not (tmp_path / "b").exists()


def test_another_checkpoint_is_refused(golden: GoldenInstructCell, shared: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="says model_type 't5'"):
        export_checkpoint(shared / "fixtures" / "t5_plain" / "model", tmp_path / "b", family="instructcell")
    broken = tmp_path / "broken"
    shutil.copytree(golden.checkpoint, broken, copy_function=shutil.copyfile)
    (broken / "config.json").chmod(0o644)
    raw = json.loads((broken / "config.json").read_text())
    raw["feature_encoder_config"]["num_query_tokens"] = 9
    (broken / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError):
        export_checkpoint(broken, tmp_path / "b", family="instructcell")


def test_a_manifest_that_lies_is_found_out(instruct_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(instruct_bundle, copy)
    raw = json.loads((copy / "manifest.json").read_text())
    raw["t5"]["n_heads"] = 8
    (copy / "manifest.json").write_text(json.dumps(raw))
    for backend in ("onnxruntime-cpu", "auto"):
        with pytest.raises(BundleError, match="copy the bundle again or export it anew"):
            verify_instruct_bundle(open_bundle(copy), backend)


def test_half_precision_holds_what_passes_it(golden: GoldenInstructCell, tmp_path: Path) -> None:
    """A T5 whose feed-forwards add up to more than half precision holds, as trained ones do."""
    import onnxruntime as ort

    from cellscribe.export.checkpoint.instructcell import read_instructcell
    from cellscribe.export.models.t5 import T5EncoderGraph
    from cellscribe.export.trace_instruct import trace_t5_encoder

    t5 = read_instructcell(golden.checkpoint).t5
    with torch.no_grad():
        t5.encoder.blocks[0].feed_forward.up.weight.mul_(300)
        t5.encoder.blocks[0].feed_forward.down.weight.mul_(300)
    tokens = torch.tensor([[79, 21, 64, 29, 106, 94, 54, 1]])
    mask, features = torch.ones_like(tokens, dtype=torch.bool), torch.zeros(1, 8, t5.config.d_model)
    with torch.no_grad():
        wanted = T5EncoderGraph(t5)(tokens, mask, features, torch.tensor([99])).numpy()
        added = t5.encoder.blocks[0].feed_forward(t5.encoder.blocks[0].norm2(t5.embedding(tokens)))
    assert added.abs().max() > 70_000
    trace_t5_encoder(T5EncoderGraph(t5.halve()), tmp_path / "encoder.onnx", 8, torch.float16)
    session = ort.InferenceSession(str(tmp_path / "encoder.onnx"))
    given = {"tokens": tokens, "mask": mask, "features": features.half(), "starts": torch.tensor([99])}
    (found,) = session.run(None, {name: one.numpy() for name, one in given.items()})
    assert abs(found - wanted).max() < 0.05 * abs(wanted).max()
