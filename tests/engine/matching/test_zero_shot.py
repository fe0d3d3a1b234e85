"""Scores of labels: the mix of LangCell, fewer matches, and labels that are sure before all texts are matched."""

from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.errors import UsageError
from cellscribe.engine.matching.zero_shot import TEMPERATURE, ZeroShot, label_scores, softmax


def drawn(seed: int, num_texts: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A cell, texts around it, and how well each matches."""
    random = np.random.default_rng(seed)
    texts = random.normal(size=(num_texts, 16)).astype(np.float32) * spread
    cell = random.normal(size=16).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return cell / np.linalg.norm(cell), texts, random.beta(0.3, 0.9, num_texts).astype(np.float32)


def test_scores_are_the_mix_by_hand() -> None:
    cell, texts, match = drawn(0, 5)
    found = label_scores(cell, texts, lambda chosen: match[chosen], ZeroShot(alpha=0.25))
    similar = np.exp((texts @ cell) / TEMPERATURE)
    matching = np.exp(match)
    wanted = 0.25 * similar / similar.sum() + 0.75 * matching / matching.sum()
    np.testing.assert_allclose(found.every, wanted, rtol=1e-5)
    assert (found.best, found.num_matched) == (int(wanted.argmax()), 5)
    assert found.score == pytest.approx(wanted.max())


def test_similarity_alone_matches_no_text() -> None:
    cell, texts, _ = drawn(1, 6)

    def refuse(chosen: np.ndarray) -> np.ndarray:
        raise AssertionError("a text was matched")

    for rerank in ("all", "sure"):
        found = label_scores(cell, texts, refuse, ZeroShot(alpha=1.0, rerank=rerank))
        assert found.best == int((texts @ cell).argmax())
        assert found.num_matched == 0


def test_texts_that_are_not_reranked_count_as_not_matching() -> None:
    cell, texts, match = drawn(2, 9)
    found = label_scores(cell, texts, lambda chosen: match[chosen], ZeroShot(rerank=3))
    similar = softmax((texts @ cell).astype(np.float64) / TEMPERATURE)
    kept = np.argsort(-similar)[:3]
    masked = np.zeros(9)
    masked[kept] = match[kept]
    np.testing.assert_allclose(found.every, 0.1 * similar + 0.9 * softmax(masked), rtol=1e-5)
    assert found.num_matched == 3


def test_a_sure_label_is_that_of_all_texts() -> None:
    saved = 0
    for seed in range(200):
        num_texts = 1 + seed % 40
        cell, texts, match = drawn(seed, num_texts)
        asked: list[int] = []

        def matched(chosen: np.ndarray, match: np.ndarray = match, asked: list[int] = asked) -> np.ndarray:
            asked.extend(chosen.tolist())
            return match[chosen]

        for alpha in (0.1, 0.5, 0.9):
            asked.clear()
            every = label_scores(cell, texts, lambda chosen, match=match: match[chosen], ZeroShot(alpha))
            sure = label_scores(cell, texts, matched, ZeroShot(alpha, "sure"))
            assert sure.best == every.best
            assert sure.score <= every.score + 1e-12
            assert len(set(asked)) == len(asked) == sure.num_matched
            assert (sure.every is None) == (sure.num_matched < num_texts)
            saved += num_texts - sure.num_matched
    assert saved > 1000  # or it would be of no use


def test_a_sure_label_lies_on_the_side_of_the_threshold_that_its_whole_score_does() -> None:
    strayed = saved = 0
    for seed in range(200):
        cell, texts, match = drawn(seed, 40)

        def matched(chosen: np.ndarray, match: np.ndarray = match) -> np.ndarray:
            return match[chosen]

        whole = label_scores(cell, texts, matched, ZeroShot(0.5)).score
        below = label_scores(cell, texts, matched, ZeroShot(0.5, "sure")).score
        strayed += below < whole
        for threshold in (0.5 * (below + whole), 0.5 * whole, min(1.0, 1.5 * whole)):
            sure = label_scores(cell, texts, matched, ZeroShot(0.5, "sure"), threshold)
            assert (sure.score < threshold) == (whole < threshold)
            saved += 40 - sure.num_matched
    assert strayed > 50  # or there was nothing to go wrong
    assert saved > 1000


def test_a_match_that_would_win_is_always_asked_for() -> None:
    """The least similar text of all matches perfectly, the others not at all."""
    cell = np.array([1.0, 0.0], np.float32)
    angles = np.linspace(0.0, 1e-3, 30)
    texts = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    match = np.zeros(30, np.float32)
    match[-1] = 1.0
    found = label_scores(cell, texts, lambda chosen: match[chosen], ZeroShot(rerank="sure"))
    assert (found.best, found.num_matched) == (29, 30)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"rerank": 0}, "rerank is 0; choose all, sure"),
        ({"rerank": "most"}, "rerank is 'most'"),
    ],
)
def test_wrong_wishes_are_one_sentence(options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ZeroShot(**options)
