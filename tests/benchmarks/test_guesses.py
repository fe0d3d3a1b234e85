"""Texts with and without guesses are timed, and are the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import guesses

from cellscribe.engine.backends.cpu import cpu_problem


@pytest.mark.skipif(bool(cpu_problem()), reason="no native CPU library")
def test_both_ways_are_timed_and_agree() -> None:
    found = guesses.measured(4, 2)
    assert [row["slots"] for row in found["rows"]] == [1, 2]
    for row in found["rows"]:
        assert len(row["seconds_with"]) == len(row["seconds_without"]) == 2
        assert row["tokens"] > 4 * 10
        assert row["ratio"][1] <= row["ratio"][0] <= row["ratio"][2]


@pytest.mark.skipif(bool(cpu_problem()), reason="no native CPU library")
def test_a_guess_that_changes_a_text_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "texts_of", lambda cells, num_slots, way: [(1, int(way))])
    with pytest.raises(ValueError, match="guesses changed a text"):
        guesses.measured(2, 1)
