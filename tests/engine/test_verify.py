from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cellscribe.engine.bundle.figures import Parity
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.errors import BundleError
from cellscribe.engine.verify import TOLERANCES, parity_failures, require_parity, verify_bundle


def test_a_sound_bundle_passes(tiny_bundle: Path) -> None:
    report = verify_bundle(str(tiny_bundle))
    assert report.passed
    assert report.parity.greedy_agreement == 1.0
    assert report.parity.logits_max_error is not None
    assert 0 < report.parity.logits_max_error < 1e-4
    assert any("greedy steps" in line for line in report.lines())


@pytest.mark.parametrize("key", ["memory", "cell", "logits"])
def test_a_bundle_that_computes_something_else_fails(tiny_bundle: Path, tmp_path: Path, key: str) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    path = folder / "reference.safetensors"
    tensors = load_file(path)
    tensors[key] = tensors[key] + np.float32(0.01) * np.arange(tensors[key].shape[-1], dtype=np.float32)
    save_file(tensors, path)
    raw = json.loads((folder / "manifest.json").read_text())
    found = record(path)
    raw["files"][path.name] = {"bytes": found.bytes, "sha256": found.sha256}
    (folder / "manifest.json").write_text(json.dumps(raw))
    report = verify_bundle(str(folder))
    assert not report.passed
    assert f"{key}_max_error" in " ".join(report.failures)


def test_each_figure_is_held_to_its_tolerance() -> None:
    good = Parity(2, "x", 0.0, 1.0, 0.0, 0.0, 1.0, 8, 0, TOLERANCES["fp32"])
    assert parity_failures(good) == ()
    for change in (
        {"memory_max_error": 1.0},
        {"memory_max_error": float("nan")},
        {"memory_min_cosine": 0.9},
        {"cell_max_error": 1.0},
        {"logits_max_error": 1.0},
        {"greedy_agreement": 0.99},
    ):
        assert len(parity_failures(replace(good, **change))) == 1  # type: ignore[arg-type]
    (sentence,) = parity_failures(replace(good, memory_min_cosine=0.9999989))
    assert sentence == "memory_min_cosine is 0.9999989, beyond the tolerance 0.999999."
    with pytest.raises(BundleError, match="does not reproduce"):
        require_parity(replace(good, cell_max_error=1.0), "b")
