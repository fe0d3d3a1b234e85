"""Courses through tries of labels."""

from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.decode.courses import Survey, Walk
from cellscribe.engine.decode.labels import LabelTrie

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
        walk, wanted = Walk(trie), [*ids, EOS]
        written = list(walk.start().fed)
        while not walk.has_ended:
            move = walk.choose(logits(**{f"t{wanted[len(written)]}": 3.0}))
            assert move.written[0][1] < 0
            assert [token for token, _ in move.written] == list(move.fed)
            written += move.fed
        assert written == wanted
        assert walk.label == name


def test_what_must_follow_is_not_asked_for() -> None:
    walk = Walk(LabelTrie(NAMES, IDS, EOS))
    assert walk.start().fed == ()
    assert walk.choose(logits(t6=1.0)).fed == (6, 7, 8, EOS)
    alone = Walk(LabelTrie(("T cell",), ((5, 2),), EOS))
    assert alone.start().fed == (5, 2, EOS)
    assert alone.has_ended


def test_a_better_token_that_is_not_allowed_plays_no_part() -> None:
    walk = Walk(LabelTrie(NAMES, IDS, EOS))
    move = walk.choose(logits(t0=50.0, t1=1.0, t5=1.0 - np.log(2), t6=1.0 - np.log(4)))
    assert move.fed == (1, 2)
    assert move.written[0][1] == pytest.approx(np.log(1 / 1.75), abs=1e-6)


def test_logits_that_are_not_finite_choose_nothing() -> None:
    for kind in (Walk, Survey):
        course = kind(LabelTrie(NAMES, IDS, EOS))
        course.start()
        move = course.choose(np.full(10, np.nan, np.float32))
        assert move.failed
        assert move.fed == move.written == ()
        assert not course.has_ended
        assert (course.node if isinstance(course, Walk) else course.at) == 0


def test_a_survey_gives_every_label_the_product_of_its_choices() -> None:
    survey = Survey(LabelTrie(NAMES, IDS, EOS))
    assert survey.start().fed == ()
    first = survey.choose(logits(t1=np.log(2), t5=np.log(3), t6=np.log(5)))  # of 10
    assert (first.written, first.fed, first.known) == ((), (1, 2), 0)
    last = survey.choose(logits(t9=np.log(1), t3=np.log(3)))  # the label ends here, or goes on; of 4
    assert last.label_logprobs is not None
    np.testing.assert_allclose(np.exp(last.label_logprobs), [0.05, 0.15, 0.3, 0.5], rtol=1e-6)
    assert survey.has_ended
    assert survey.label == "monocyte"
    assert [token for token, _ in last.written] == [6, 7, 8, EOS]
    assert last.written[0][1] == pytest.approx(np.log(0.5))
    assert last.fed == ()


def test_a_survey_goes_back_to_where_a_branch_begins() -> None:
    trie = LabelTrie("abcd", ((7, 1, 2, 5), (7, 1, 3), (7, 4, 6), (7, 4, 5)), EOS)
    survey = Survey(trie)
    assert survey.start().fed == (7,)
    moves = [survey.choose(np.zeros(10, np.float32)) for _ in trie.visits]
    assert [(move.fed, move.known) for move in moves[:-1]] == [((1,), 1), ((4,), 1)]
    np.testing.assert_allclose(np.exp(survey.label_logprobs), 0.25, rtol=1e-6)


def test_the_best_label_is_not_always_the_one_of_the_best_tokens() -> None:
    ids = ((1, 2), (1, 3), (1, 4), (5,))
    walk, survey = Walk(LabelTrie("abcd", ids, EOS)), Survey(LabelTrie("abcd", ids, EOS))
    at_first = logits(t1=np.log(6), t5=np.log(4))
    walk.start(), walk.choose(at_first), walk.choose(np.zeros(10, np.float32))
    survey.start(), survey.choose(at_first), survey.choose(np.zeros(10, np.float32))
    assert (walk.label, survey.label) == ("a", "d")  # 0.2, 0.2, 0.2, 0.4


def test_a_survey_of_one_label_asks_nothing() -> None:
    survey = Survey(LabelTrie(("T cell",), ((5, 2),), EOS))
    move = survey.start()
    assert [token for token, _ in move.written] == [5, 2, EOS]
    assert move.label_logprobs is not None
    assert move.label_logprobs.tolist() == [0.0]
    assert survey.has_ended
