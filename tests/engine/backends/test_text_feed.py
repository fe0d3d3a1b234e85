"""How new tokens are cut into runs of all rows."""

from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.backends.text_feed import FEW, ONE, feeds, room_for, shared, visible
from cellscribe.engine.backends.text_state import Rows
from cellscribe.engine.types import Sampling

ROWS, CAPACITY = 5, 64


def rows_of(new: dict[int, int], before: np.ndarray) -> tuple[Rows, np.ndarray]:
    """New tokens of some slots, numbered 100 * slot + position, and the positions known with them."""
    parts = [(slot, before[slot] + np.arange(count)) for slot, count in new.items()]
    positions = np.concatenate([where for _, where in parts])
    slots = np.concatenate([np.full(len(where), slot) for slot, where in parts])
    counts = np.array(list(new.values()))
    known = before.copy()
    known[list(new)] += counts
    return Rows(100 * slots + positions, slots, positions, counts.cumsum() - 1), known


@pytest.mark.parametrize("new", [{0: 1, 2: 1}, {1: 3}, {0: 1, 1: 2, 3: 9}, {0: 17, 1: 8, 2: 1, 4: 10}])
def test_every_token_is_written_once_at_its_place_and_nothing_seen_is_overwritten(new: dict[int, int]) -> None:
    before = np.array([3, 10, 0, 40, 7])
    rows, known = rows_of(new, before)
    caches = np.full((ROWS, CAPACITY), -1)
    for row in range(ROWS):
        caches[row, : before[row]] = 100 * row + np.arange(before[row])
    wanted: dict[int, int] = {}
    for feed in feeds(rows, list(new), known, CAPACITY):
        assert feed.width in (ONE, FEW)
        for row in range(ROWS):
            caches[row, feed.positions[row, 0] + np.arange(feed.width)] = feed.tokens[row]
            assert feed.positions[row].max() <= known[row]
        for slot in feed.slots.tolist():
            at = feed.positions[slot, feed.chosen[slot, 0]]
            wanted[slot] = int(at)
            assert (caches[slot, : at + 1] == 100 * slot + np.arange(at + 1)).all()
    assert wanted == {slot: before[slot] + count - 1 for slot, count in new.items()}
    for row in range(ROWS):
        assert (caches[row, : known[row]] == 100 * row + np.arange(known[row])).all()


def test_how_a_slot_is_cut_does_not_depend_on_its_neighbours() -> None:
    before = np.zeros(ROWS, np.int64)
    cuts = []
    for new in ({1: 10}, {0: 1, 1: 10, 2: 30}):
        rows, known = rows_of(new, before)
        mine = [feed for feed in feeds(rows, list(new), known, CAPACITY) if (feed.tokens[1] >= 100).any()]
        cuts.append([(feed.width, feed.tokens[1].tolist(), feed.chosen[1].tolist()) for feed in mine])
    assert cuts[0] == cuts[1]
    assert [width for width, _, _ in cuts[0]] == [FEW, FEW]


def test_a_window_hides_what_lies_before_it() -> None:
    positions = np.array([[4, 5]])
    assert visible(positions, 8)[0].sum(-1).tolist() == [5, 6]
    assert np.flatnonzero(visible(positions, 8, 3)[0, 1]).tolist() == [3, 4, 5]


def test_room_for_a_few_tokens_behind_a_label() -> None:
    plan = TextPlan(2, 30, 6, Sampling())
    assert room_for(plan) == 36
    assert room_for(TextPlan(2, 30, 6, Sampling(), longest_label=6)) == 36 + FEW


def test_what_is_shared_with_a_prefix_leaves_something_to_run() -> None:
    prefix = np.array([1, 2, 3, 4])
    assert shared(prefix, np.array([1, 2, 3, 4, 5, 6]), 2) == 4
    assert shared(prefix, np.array([1, 2, 3, 4]), 2) == 2
    assert shared(prefix, np.array([1, 2, 9, 4, 5, 6]), 2) == 2
    assert shared(prefix, np.array([1]), 2) == 0
    assert shared(np.zeros(0, np.int64), np.array([1, 2, 3]), 2) == 0
