"""Floors of compared engines: bytes and operations, percentiles and shares of the roofline."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from peers import floors
from peers.floors import judge, lines_of, lingocell, plain
from peers.tiny_llama import LlamaShape

from cellscribe.engine.bench.work import Work
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape, EncoderShape

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
    assert "| one | 4,000.0 / - / - |" in lines_of(entry, "step")[2]
    entry["rows"][0]["parts"]["step"]["rounds"] = [[2.0] * 9, [4.0]]
    assert "| one | 4,000.0 / 4,000.0 / - |" in lines_of(entry, "step")[2]
    entry["rows"][0]["parts"]["step"]["rounds"] = [[4.0] * 50] * 2
    assert "| one | 4,000.0 / 4,000.0 / 4,000.0 |" in lines_of(entry, "step")[2]
    assert lines_of(entry, "whole") == []


S, B, LAYER, CROSS, HEAD_OF_CELLS = 4, 3, 2 * 8 * (8 + 4) + 3 * 8 * 16, 2 * 8 * 8, 8 * 10
CELLS = {"cells": B, "new_tokens": 3}


@pytest.fixture
def tiny_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers d 8, two heads of 4, one key/value head, a cross-attention to S = 4 rows of 6; a prompt of 2."""
    manifest = SimpleNamespace(
        encoder_shape=EncoderShape(6, 1, 2, 5),
        decoder=DecoderShape(10, 8, 2, 1, 2, 1, 4, 16, 32),
        cross_attention=CrossShape("latent", 1, 2, 2, 4, 6, False),
        prompt=SimpleNamespace(token_ids=(1, 2)),
        cell_input=SimpleNamespace(num_genes=S - 1),
    )
    monkeypatch.setattr(floors, "read_manifest", lambda _bundle: manifest)


@pytest.mark.usefixtures("tiny_manifest")
def test_a_step_about_cells_by_hand() -> None:
    in_use = 2 + 3 / 2
    absorbed = 2 * 2 * 4 * 6
    weights = 2 * LAYER + CROSS + absorbed + HEAD_OF_CELLS
    caches = 2 * 2 * 4 * in_use  # keys and values of two layers, one head 4 wide
    step = lingocell(Path("tiny"), 0)("fp32", CELLS, "cellscribe fp32")["step"]
    assert step.bytes == 4 * (weights + B * (S * 6 + caches + 8))
    assert step.flops == B * (2 * weights + 4 * 2 * S * 6 + 4 * 2 * 2 * 4 * in_use)
    four = lingocell(Path("tiny"), 0)("int4", CELLS, "cellscribe int4")["step"].bytes
    read = (weights - HEAD_OF_CELLS) * 0.5625 + HEAD_OF_CELLS * 1.0625
    assert four == pytest.approx(read + B * (S * 6 * 1.0625 + 4 * caches + 8 * 0.5625))


@pytest.mark.usefixtures("tiny_manifest")
def test_memories_that_fit_the_cache_are_read_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = floors.read_manifest(Path("tiny"))
    manifest.cross_attention = CrossShape("latent", 3, 2, 2, 4, 6, False)
    memories = 4 * B * S * 6
    without, with_cache = (lingocell(Path("tiny"), size)("fp32", CELLS)["step"] for size in (memories - 1, memories))
    assert without.bytes - with_cache.bytes == 2 * memories  # of three cross-attentions, once
    monkeypatch.setattr(floors.Hardware, "here", lambda: SimpleNamespace(last_cache_bytes=memories))
    assert lingocell(Path("tiny"))("fp32", CELLS)["step"] == with_cache  # as `cellscribe bench` counts


@pytest.mark.usefixtures("tiny_manifest")
def test_torch_is_judged_by_the_form_it_uses() -> None:
    ours, torch = (lingocell(Path("tiny"), 10**9)("fp32", CELLS, who) for who in ("cellscribe fp32", "torch eager"))
    weights = 2 * LAYER + CROSS + HEAD_OF_CELLS  # nothing is absorbed
    kept = 2 * 2 * 4 * S  # keys and values of two heads, 4 wide, of every row
    caches = 2 * 2 * 4 * 3.5
    assert torch["step"].bytes == 4 * (weights + B * (kept + caches + 8))
    assert torch["step"].flops == B * (2 * weights + 4 * 2 * S * 4 + 4 * 2 * 2 * 4 * 3.5)
    made, P = 2 * 6 * 2 * 4, 2
    seen = 2 * S * made + 4 * P * S * 8
    assert torch["prompt"].flops == B * (
        2 * P * (2 * LAYER + CROSS) + seen + 2 * 2 * 2 * 4 * P**2 + 2 * HEAD_OF_CELLS
    )  # all layers, the one below the cross-attention too
    assert ours["prompt"].bytes == torch["prompt"].bytes - 4 * LAYER
    assert ours["encoder"] == torch["encoder"]
    entry: dict[str, Any] = {
        "sizes": CELLS,
        "roofline": {"threads": 2, "rates": {"read": [1e9], "fp32": [1e12]}, "busy": [1.0]},
        "rows": [
            {"who": who, "bits": 32, "parts": {"step": {"median": 1.0, "rounds": [[1.0]]}}}
            for who in ("cellscribe fp32", "torch eager")
        ],
    }
    judge(entry, lingocell(Path("tiny"), 10**9))
    told = [row["parts"]["step"]["floor"]["bytes"] for row in entry["rows"]]
    wanted: list[Work] = [ours["step"], torch["step"]]
    assert told == [pytest.approx(one.bytes, rel=1e-5) for one in wanted]
