"""What the shared prompt saves: both ways agree, and one file has an entry for each precision."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import shared_prompt

from cellscribe.engine.bench.roofline import Roofline
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.kernels.cpu_library import load_cpu_library


@pytest.mark.skipif(load_cpu_library() is None, reason="the package was built without a C++ compiler")
def test_both_ways_agree_and_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(self: Roofline, *, is_quick: bool = False) -> None:
        self.add({"read": 20e9, "copy": 18e9, "fp32": 60e9})

    monkeypatch.setattr(Roofline, "measure", measure)
    entry = shared_prompt.measured(open_bundle(packaged_bundle()), 2, 2)
    assert entry["largest_difference_of_logits"] < 1e-3  # fp32: rounding alone
    assert [len(one) for one in entry["seconds"].values()] == [2, 2]
    assert all(share > 0 for share in entry["percent_of_roofline"].values())
    assert len(entry["roofline"]["rates"]["read"]) == 2
    assert {"date", "versions", "hardware", "made_by", "device"} <= entry.keys()
    assert json.dumps(entry)


def test_a_file_has_an_entry_for_each_precision(tmp_path: Path) -> None:
    path = tmp_path / "shared_prompt.json"
    path.write_text(json.dumps({"precision": "int4", "ratio": [1.4, 1.3, 1.5]}))  # of one bundle, as it was
    for precision, cells in (("int4", 8), ("fp32", 8), ("int4", 4)):
        shared_prompt.keep(path, {"precision": precision, "cells": cells})
    entries = json.loads(path.read_text())["entries"]
    assert {name: one["cells"] for name, one in entries.items()} == {"int4": 4, "fp32": 8}
