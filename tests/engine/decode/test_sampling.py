from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.decode.sampling import choose, choose_each, log_softmax
from cellscribe.engine.types import Sampling


def keys(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint64) * np.uint64(7919)


def test_greedy_takes_the_best_and_the_lowest_id_among_equals() -> None:
    logits = np.array([[0.0, 2.0, 1.0], [5.0, 5.0, 1.0]], dtype=np.float32)
    tokens, logprobs = choose(logits, Sampling(), keys(2), np.zeros(2, np.int64))
    assert tokens.tolist() == [1, 0]
    expected = np.log(np.exp(logits[0, 1]) / np.exp(logits[0]).sum())
    assert logprobs[0] == pytest.approx(expected, rel=1e-6)


def test_log_softmax_stays_finite_for_large_logits() -> None:
    logprobs = log_softmax(np.array([[1e4, 0.0, -1e4]], dtype=np.float32))
    assert logprobs[0].tolist() == [0.0, -1e4, -2e4]


def test_sampled_frequencies_follow_the_distribution_cut_at_top_p() -> None:
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    count = 20000
    logits = np.tile(np.log(probabilities), (count, 1)).astype(np.float32)
    tokens, _ = choose(logits, Sampling(top_p=0.9, temperature=1.0), keys(count), np.zeros(count, np.int64))
    seen = np.bincount(tokens, minlength=4) / count
    kept = np.array([0.5, 0.3, 0.15, 0.0]) / 0.95  # 0.5 + 0.3 is short of 0.9, so the third is in
    assert np.abs(seen - kept).max() < 0.015


def test_temperature_sharpens() -> None:
    logits = np.tile(np.array([1.0, 0.0], dtype=np.float32), (5000, 1))
    cold, _ = choose(logits, Sampling(temperature=0.2), keys(5000), np.zeros(5000, np.int64))
    warm, _ = choose(logits, Sampling(temperature=5.0), keys(5000), np.zeros(5000, np.int64))
    assert cold.mean() < 0.02
    assert 0.4 < warm.mean() < 0.5


def test_tiny_top_p_is_greedy() -> None:
    logits = np.random.default_rng(0).normal(size=(64, 30)).astype(np.float32)
    tokens, _ = choose(logits, Sampling(top_p=1e-6, temperature=1.0), keys(64), np.zeros(64, np.int64))
    assert (tokens == logits.argmax(-1)).all()


def test_a_draw_depends_on_cell_position_and_seed_only() -> None:
    logits = np.random.default_rng(1).normal(size=(8, 50)).astype(np.float32)
    positions = np.arange(8)
    sampling = Sampling(0.95, 1.0, 5)
    together, _ = choose(logits, sampling, keys(8), positions)
    order = np.array([3, 1, 7, 0, 5, 2, 6, 4])
    shuffled, _ = choose(logits[order], sampling, keys(8)[order], positions[order])
    assert (shuffled == together[order]).all()
    others, _ = choose(logits, Sampling(0.95, 1.0, 6), keys(8), positions)
    assert (others != together).any()


def test_reported_probability_is_before_temperature() -> None:
    logits = np.array([[2.0, 1.0, 0.0]], dtype=np.float32)
    tokens, logprobs = choose(logits, Sampling(temperature=3.0), keys(1), np.zeros(1, np.int64))
    assert logprobs[0] == log_softmax(logits)[0, tokens[0]]


def test_rows_of_several_samplings_are_chosen_as_each_would_be_alone() -> None:
    logits = np.random.default_rng(2).normal(0, 2, size=(24, 333)).astype(np.float32)
    positions = np.arange(24) % 5
    samplings = [Sampling(), Sampling(0.9, 0.7, 3), Sampling(0.9, 0.7, 4), Sampling(seed=8), Sampling(1.0, 2.0, 3)] * 5
    tokens, logprobs = choose_each(logits, samplings[:24], keys(24), positions)
    assert (tokens.dtype, logprobs.dtype) == (np.int64, np.float32)
    for row in range(24):
        one = slice(row, row + 1)
        token, logprob = choose(logits[one], samplings[row], keys(24)[one], positions[one])
        assert (tokens[row], logprobs[row]) == (token[0], logprob[0])


def test_greedy_rows_go_the_fast_way_together_and_others_do_not() -> None:
    logits = np.random.default_rng(3).normal(size=(6, 20)).astype(np.float32)
    seen: list[np.ndarray] = []

    def fast(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(rows)
        return np.full(len(rows), 19), np.full(len(rows), -0.5, np.float32)

    drawn = Sampling(temperature=1.0)
    samplings = [Sampling(), drawn, Sampling(seed=1), drawn, Sampling(), drawn]
    tokens, logprobs = choose_each(logits, samplings, keys(6), np.zeros(6, np.int64), fast)
    (rows,) = seen
    assert np.array_equal(rows, logits[::2])
    assert (tokens[::2].tolist(), logprobs[::2].tolist()) == ([19] * 3, [-0.5] * 3)
    expected, _ = choose(logits[1::2], drawn, keys(6)[1::2], np.zeros(3, np.int64), fast)
    assert np.array_equal(tokens[1::2], expected)
