"""Label tries."""

from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.decode.labels import LabelTrie, Walk
from cellscribe.engine.errors import UsageError

EOS = 9
NAMES = ("B cell", "B cell, naive", "T cell", "monocyte")
IDS = ((1, 2), (1, 2, 3, 4), (5, 2), (6, 7, 8))


def logits(**best: float) -> np.ndarray:
    found = np.zeros(10, np.float32)
    for name, value in best.items():
        found[int(name[1:])] = value
    return found


def test_every_label_can_be_reached_and_nothing_else() -> None:
    trie = LabelTrie(NAMES, IDS, EOS)
    for name, ids in zip(NAMES, IDS, strict=True):
        walk, written, wanted = Walk(trie), [], [*ids, EOS]
        written += walk.start()
        while not walk.has_ended:
            tokens, logprob = walk.choose(logits(**{f"t{wanted[len(written)]}": 3.0}))
            assert logprob < 0
            written += tokens
        assert written == wanted
        assert walk.label == name


def test_what_must_follow_is_not_asked_for() -> None:
    trie = LabelTrie(NAMES, IDS, EOS)
    assert trie.num_choices == 2
    walk = Walk(trie)
    assert walk.start() == []
    assert walk.choose(logits(t6=1.0))[0] == [6, 7, 8, EOS]
    alone = Walk(LabelTrie(("T cell",), ((5, 2),), EOS))
    assert alone.start() == [5, 2, EOS]
    assert alone.has_ended


def test_a_better_token_that_is_not_allowed_plays_no_part() -> None:
    walk = Walk(LabelTrie(NAMES, IDS, EOS))
    tokens, logprob = walk.choose(logits(t0=50.0, t1=1.0, t5=1.0 - np.log(2), t6=1.0 - np.log(4)))
    assert tokens == [1, 2]
    assert logprob == pytest.approx(np.log(1 / 1.75), abs=1e-6)


def test_logits_that_are_not_finite_choose_nothing() -> None:
    walk = Walk(LabelTrie(NAMES, IDS, EOS))
    tokens, logprob = walk.choose(np.full(10, np.nan, np.float32))
    assert tokens == []
    assert np.isnan(logprob)
    assert walk.node == 0


@pytest.mark.parametrize(
    ("labels", "ids", "said"),
    [((), (), "no labels"), (("a", "b"), ((1,), (1,)), "'a' and 'b' are the same"), (("",), ((),), "is empty")],
)
def test_labels_that_cannot_be_used(labels: tuple[str, ...], ids: tuple[tuple[int, ...], ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LabelTrie(labels, ids, EOS)
