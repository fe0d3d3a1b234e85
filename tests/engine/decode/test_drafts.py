from __future__ import annotations

import pytest

from cellscribe.engine.decode import drafts
from cellscribe.engine.decode.drafts import Drafts

TEXT = (5, 6, 7, 8, 9, 8, 9)


def written(*texts: tuple[int, ...]) -> Drafts:
    """Drafts that saw whole texts, one after the other in slot 0."""
    found = Drafts()
    for text in texts:
        found.begin(0)
        for token in text:
            found.add(0, token)
    return found


def test_a_text_that_was_seen_is_guessed_from_its_beginning() -> None:
    found = written(TEXT)
    found.begin(1)
    assert found.guess(1, 3) == [5, 6, 7]
    found.add(1, 5)
    assert found.guess(1, 2) == [6, 7]
    assert found.guess(1, 0) == found.guess(1, -4) == []
    assert found.guess(1, 99) == list(TEXT[1:])


def test_guessing_changes_nothing_and_slots_are_apart() -> None:
    found = written(TEXT)
    found.begin(1)
    found.begin(2)
    found.add(2, 5)
    assert [found.guess(slot, 2) for slot in (1, 2, 1, 2)] == [[5, 6], [6, 7]] * 2


def test_what_was_never_seen_is_not_guessed() -> None:
    found = Drafts()
    found.begin(0)
    assert found.guess(0, 3) == []
    found.add(0, 1)
    assert found.guess(0, 3) == []
    after = written(TEXT)
    after.begin(0)
    after.add(0, 6)
    assert after.guess(0, 3) == []


def test_the_last_text_counts_where_two_differ() -> None:
    found = written((1, 2, 3, 4), (1, 2, 3, 5))
    found.begin(0)
    assert found.guess(0, 4) == [1, 2, 3, 5]


def test_a_text_that_failed_teaches_nothing() -> None:
    found = written((1, -1), (-1,))
    found.begin(0)
    assert found.guess(0, 3) == [1]


def test_guesses_stop_when_they_fail_and_are_tried_again_now_and_then() -> None:
    found = Drafts()
    tries = 0
    while found.is_worthwhile():
        found.learn([1, 2, 3], 0)
        tries += 1
    assert 3 < tries < 20
    waited = 1
    while not found.is_worthwhile():
        waited += 1
    assert waited == drafts._PROBE_EVERY - 1
    for _ in range(4):
        found.learn([1, 2, 3], 3)
    assert all(found.is_worthwhile() for _ in range(40))


@pytest.mark.parametrize(
    ("right", "has_ended", "hits", "misses"),
    [(3, False, 3, 0), (2, False, 2, 1), (0, False, 0, 1), (1, True, 1, 0), (3, True, 3, 0)],
)
def test_the_rate_counts_guesses_that_could_be_judged(right: int, has_ended: bool, hits: int, misses: int) -> None:
    """Those after the first wrong one, or after the end of the text, stood on nothing."""
    found = Drafts()
    found.learn([4, 4], 0)
    expected = found.rate
    for is_right in [True] * hits + [False] * misses:
        expected = drafts._MEMORY * expected + (1 - drafts._MEMORY) * is_right
    found.learn([1, 2, 3], right, has_ended=has_ended)
    assert found.rate == pytest.approx(expected)


def test_memory_is_bounded_and_known_places_go_on_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "_MOST_ENTRIES", 4)
    found = written((1, 2, 3, 4, 5, 6, 7), (1, 9))
    assert len(found._next) == 4
    found.begin(0)
    assert found.guess(0, 2) == [1, 9]
