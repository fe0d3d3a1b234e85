"""Checking our own library for CPUs against torch and against ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine import verify
from cellscribe.engine.backends import choose
from cellscribe.engine.backends.choose import NATIVE, Choice
from cellscribe.engine.backends.cpu import CpuBackend
from cellscribe.engine.backends.cpu.slots import CpuSlots
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.load import DECODER, ENCODER
from cellscribe.engine.bundle.onnx_weights import PACKED, onnx_weights
from cellscribe.engine.measure import NUM_CELLS, NUM_TOKENS, SLOT_COUNTS, expected_of, real_cells
from cellscribe.engine.packaged import packaged_bundle, packaged_cells
from cellscribe.engine.verify import examine_backend, verify_bundle

pytestmark = pytest.mark.usefixtures("native_library")
PRECISIONS = ("fp16-stored", "int8", "int4")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_gpu", lambda: False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the packaged bundle in any precision, made once each."""
    made = {"fp32": packaged_bundle()}

    def folder(precision: str) -> Path:
        if precision not in made:
            pytest.importorskip("onnx", reason="the export extra is not installed")
            from cellscribe.export.quantize import quality
            from cellscribe.export.quantize.bundle import quantize_bundle

            made[precision] = tmp_path_factory.mktemp("bundles") / precision
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(quality, "_MAX_CELLS", 8)  # enough to say what passes
                quantize_bundle(packaged_bundle(), made[precision], precision)
        return made[precision]

    return folder


def test_taken_by_itself_it_is_compared_with_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would take minutes for a large bundle."""
    monkeypatch.setattr(verify, "OnnxRuntimeCpu", lambda *_: pytest.fail("ONNX Runtime was opened"))
    report = verify_bundle(str(packaged_bundle()))
    assert report.passed, report.lines()
    assert report.backend == NATIVE
    assert report.against_cpu is None
    assert report.timings == ()
    assert dict(report.facts)["backend"].startswith("cpu: CPU, native")


@pytest.mark.parametrize("options", [{"backend": "cpu"}, {"cells": packaged_cells()}, {"is_timed": True}])
def test_asked_for_it_is_compared_with_onnx_runtime_and_timed(options: dict[str, object]) -> None:
    report = verify_bundle(str(packaged_bundle()), **options)  # type: ignore[arg-type]
    assert report.passed, report.lines()
    assert report.against_cpu is not None
    assert (report.against_cpu.cells, report.against_cpu.tokens) == (NUM_CELLS, NUM_CELLS * NUM_TOKENS)
    assert report.against_cpu.logits_max_error is not None
    assert report.against_cpu.logits_max_error < 1e-4
    assert [one.slots for one in report.timings] == [0, *SLOT_COUNTS]
    assert "compared with ONNX Runtime on the CPU:" in report.lines()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_quantised_bundles_pass(folders: Callable[[str], Path], precision: str) -> None:
    """What passes for them was measured with ONNX Runtime; ours rounds activations elsewhere."""
    report = verify_bundle(str(folders(precision)), backend="cpu")
    assert report.passed, report.lines()
    assert report.against_cpu is not None


def spoil(folder: Path, graph: str, change: Callable[[np.ndarray], None]) -> None:
    """Change the bytes of the largest weight of a graph, under a manifest that says so."""
    weights = onnx_weights(folder / graph)
    packed = {name: one for name, one in weights.tensors.items() if name.endswith(PACKED)} or dict(weights.tensors)
    largest = max((one for name, one in packed.items() if "embedding" not in name), key=lambda one: one.nbytes)
    path = folder / f"{graph}.data"
    content = np.fromfile(path, np.uint8)
    at = content.tobytes().index(largest.tobytes())
    change(content[at : at + largest.nbytes])
    content.tofile(path)
    raw, found = json.loads((folder / "manifest.json").read_text()), record(path)
    raw["files"][path.name] = {"bytes": found.bytes, "sha256": found.sha256}
    (folder / "manifest.json").write_text(json.dumps(raw))


def rotated(part: np.ndarray) -> None:
    part[:] = np.roll(part, len(part) // 2)


@pytest.mark.parametrize("precision", ["fp32", *PRECISIONS])
@pytest.mark.parametrize("graph", [ENCODER, DECODER])
def test_a_bundle_with_other_weights_fails(
    folders: Callable[[str], Path], tmp_path: Path, precision: str, graph: str
) -> None:
    """One weight whose halves changed places, in a bundle whose hashes are right."""
    folder = Path(shutil.copytree(folders(precision), tmp_path / "bundle"))
    spoil(folder, graph, rotated)
    report = verify_bundle(str(folder))
    assert report.backend == NATIVE
    assert not report.passed
    figures = ("memory_max_error", "cell_max_error") if graph == ENCODER else ("logits_max_error", "greedy")
    assert any(name in " ".join(report.failures) for name in figures)


def test_a_library_that_computes_something_else_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, right = open_bundle(packaged_bundle()), CpuSlots.logits
    monkeypatch.setattr(CpuSlots, "logits", lambda self, count: right(self, count)[:, ::-1])
    report = examine_backend(bundle, Choice(CpuBackend(bundle, 2), NATIVE), threads=2, is_timed=True)
    assert any(one.startswith("compared with ONNX Runtime on the CPU: logits_max_error is") for one in report.failures)


def test_what_another_backend_is_compared_with_is_not_guessed() -> None:
    """One step, one token: with guesses the logits would be those of a later one."""
    bundle = open_bundle(packaged_bundle())
    backend = CpuBackend(bundle, 2)
    batch, _ = real_cells(bundle, None, 1)
    several, _ = real_cells(bundle, None, 4)
    assert batch is not None
    assert several is not None
    one, more = expected_of(bundle, backend, batch), expected_of(bundle, backend, several)
    assert one.tokens is not None
    assert more.tokens is not None
    assert one.tokens.shape == (1, NUM_TOKENS)
    assert (one.tokens[0] == more.tokens[0]).all()
