"""Floors of compared engines: bytes and operations, percentiles and shares of the roofline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from peers.floors import judge, lines_of, plain
from peers.tiny_llama import LlamaShape

SHAPE = LlamaShape(d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, d_ffn=16, vocab_size=10)
SIZES = {"slots": 3, "prompt_len": 4, "new_tokens": 2}
WEIGHTS = 2 * 8 * (8 + 4) + 3 * 8 * 16  # of the layer
HEAD = 8 * 10


def test_a_step_reads_all_weights_once_and_each_cache() -> None:
    floors = plain(SHAPE)("fp32", SIZES)
    step = floors["step"]
    assert step.bytes == 4 * (WEIGHTS + HEAD) + 3 * 5 * 2 * 4 * 4  # 5 tokens of keys and values, 4 wide, 4 bytes each
    assert step.flops == 3 * (2 * (WEIGHTS + HEAD) + 4 * 8 * 5)
    assert floors["prompt"].flops == 3 * (2 * 4 * WEIGHTS + 2 * HEAD + 2 * 8 * 16)
    assert floors["whole"].bytes == floors["prompt"].bytes + step.bytes  # one step follows the prompt


def test_the_head_keeps_eight_bits() -> None:
    eight, four = (plain(SHAPE)(precision, SIZES)["step"].bytes for precision in ("int8", "int4"))
    assert eight - four == pytest.approx(WEIGHTS / 2)


def test_an_entry_is_judged_by_what_the_machine_did_around_it() -> None:
    step = plain(SHAPE)("fp32", SIZES)["step"]
    entry: dict[str, Any] = {
        "sizes": SIZES,
        "roofline": {"threads": 2, "rates": {"read": [step.bytes], "fp32": [1e12]}, "busy": [1.0]},
        "rows": [{"who": "one", "bits": 32, "parts": {"step": {"median": 4.0, "rounds": [[2.0, 4.0], [4.0]]}}}],
    }
    judge(entry, plain(SHAPE))
    part = entry["rows"][0]["parts"]["step"]
    assert part["floor"]["percent_of_roofline"] == pytest.approx(25.0)
    assert part["floor"]["gigabytes_per_s"] == pytest.approx(step.bytes / 4e9, rel=1e-5)
    assert (part["ms"]["p50"], part["ms"]["p99"]) == (4000.0, 4000.0)
    assert "| one | 4,000.0 / 4,000.0 / 4,000.0 |" in lines_of(entry, "step")[2]
    assert lines_of(entry, "whole") == []
