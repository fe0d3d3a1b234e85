"""Manifests of bundles that follow instructions, edited by hand to what cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cellscribe.engine.bundle.manifest import MANIFEST_NAME, read_manifest
from cellscribe.engine.errors import BundleError


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("profile", "library_deviation", -1.0, "library_deviation -1 are no mean and deviation"),
        ("profile", "library_mean", float("nan"), "library_mean nan"),
        ("instruct", "target_sum", 0.0, "target_sum is 0, and must be above 0"),
        ("instruct", "eos_token_ids", [], r"eos_token_ids are .*; one other than the signal must end texts"),
        ("instruct", "eos_token_ids", "signal", "one other than the signal must end texts"),
    ],
)
def test_what_cannot_be_is_refused(
    instruct_bundle: Path, tmp_path: Path, part: str, name: str, value: Any, message: str
) -> None:
    shutil.copy(instruct_bundle / MANIFEST_NAME, tmp_path)
    raw = json.loads((tmp_path / MANIFEST_NAME).read_text())
    raw[part][name] = [raw[part]["signal_id"]] if value == "signal" else value
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=message):
        read_manifest(tmp_path)
