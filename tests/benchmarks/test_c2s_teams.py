"""Who is asked what in the comparison of Cell2Sentence, and what becomes of those that cannot be had."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import c2s  # noqa: E402
from peers import compared  # noqa: E402
from peers.compared import Comparison  # noqa: E402
from peers.floors import plain  # noqa: E402
from peers.models import FORMATS  # noqa: E402
from peers.registry import Peer, c2s_peers  # noqa: E402
from peers.tiny_neox import NeoxShape  # noqa: E402
from results_folder import VARIABLE  # noqa: E402

ASKED = argparse.Namespace(bits=[4, 8, 16, 32], cells=4, new_tokens=20, rounds=2, shape="tiny-neox")


def test_every_team_has_a_reference_ours_and_a_warm_up() -> None:
    found = [one for question in ("types", "cells") for one in c2s.comparisons(ASKED, question)]
    assert len({one.key for one in found}) == len(found) == len(c2s.TYPES) + len(c2s.CELLS)
    for one in found:
        assert (one.peers[0].name, one.peers[0].bits) == (one.reference, 32)
        assert any(peer.name.startswith("cellscribe") for peer in one.peers)
        assert len({peer.name for peer in one.peers}) == len(one.peers)
        assert all(peer.form in FORMATS for peer in one.peers)
        first = one.first_request_of(one.peers[0])
        assert first["margins"]
        assert len(first["prompts"]) == c2s.WARM_UP_CELLS
        assert one.request_of(one.peers[0])["batch"] == (1 if one.reference == c2s.UPSTREAM else c2s.BATCH)
    assert len(found[0].request["prompts"]) == found[0].sizes["cells"] == 4
    assert len(found[-1].request["prompts"]) == 2


def test_an_engine_that_cannot_run_the_model_does_not_ask_for_another_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoRoofline:
        def __init__(self, threads: int) -> None:
            pass

        def measure(self, *, is_quick: bool) -> None:
            pass

        def as_dict(self) -> dict[str, Any]:
            return {"threads": 2, "rates": {"read": [2e9], "fp32 registers": [1e9]}, "busy": [0.9]}

    measured: list[str] = []

    def measure(one: Comparison, parts: object) -> dict[str, Any]:
        measured.append(one.key)
        return {"rows": [], "ratios": {}, "agreement": {}, "missing": {"b": "not here"}, "rounds": 1, "sizes": {}}

    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(compared, "Roofline", NoRoofline)
    monkeypatch.setattr(compared, "measured", measure)
    todo = [Comparison("known", (), {}, 1.0, may_lack=frozenset("b")), Comparison("unknown", (), {}, 1.0)]
    compared.kept("x", todo, {}, plain(NeoxShape()))
    compared.kept("x", todo, {}, plain(NeoxShape()))
    assert measured == ["known", "unknown", "unknown"]
    assert "b: not measured, as not here" in (tmp_path / "x.md").read_text()
    assert set(json.loads((tmp_path / "x.json").read_text())["comparisons"]) == {"known", "unknown"}


def test_a_peer_may_have_a_tolerance_of_its_own() -> None:
    peers = [Peer("a", "torch", "", "", 32), Peer("b", "torch", "", "", 32), Peer("c", "x", "", "", 32, near_tie=0.05)]
    answers = {
        "a": [{"tokens": [[1, 2]], "margins": [[1.0, 0.01]]}],
        "b": [{"tokens": [[1, 3]]}],
        "c": [{"tokens": [[1, 3]]}],
    }
    assert list(compared._unequal(Comparison("x", peers, {}, 1.0, reference="a"), answers)) == ["b"]
    widths = {one.near_tie for one in c2s_peers(8) if one.environment == "llama_cpp"}
    assert widths == {0.05}


def test_floors_of_many_batches() -> None:
    shape = NeoxShape(d_model=8, n_layers=1, n_heads=2, d_ffn=16, vocab_size=10)
    layers, head = 4 * 8 * 8 + 2 * 8 * 16, 80
    sizes = {"cells": 6, "batch": 3, "prompt_len": 4, "new_tokens": 3}
    found = plain(shape)("fp32", sizes)
    assert found["step"].flops == 3 * (2 * (layers + head) + 4 * 8 * 5.5)
    assert found["prompt"].flops == 6 * (2 * 4 * layers + 2 * head + 2 * 8 * 16)
    assert found["prompt"].bytes == 2 * (4 * (layers + head) + 3 * 4 * 2 * 8 * 4)
    assert found["whole"].bytes == found["prompt"].bytes + 2 * 2 * found["step"].bytes
    alone = plain(shape)("fp32", {**sizes, "batch": 1})
    assert alone["prompt"].flops == found["prompt"].flops
    assert alone["whole"].bytes > found["whole"].bytes
