"""Which rows of which prompts run together, and sums that do not depend on it."""

from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.backends.prompt_rows import StateSums, by_size, common_prefix, lay_out


def test_groups_hold_what_is_no_more_than_twice_as_large() -> None:
    sizes = [5, 90, 100, 50, 49, 9, 4, 100]
    groups = by_size(sizes)
    assert groups == [[2, 7, 1, 3], [4], [5, 0], [6]]
    assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
    for group in groups:
        assert max(sizes[i] for i in group) <= 2 * min(sizes[i] for i in group)
    assert by_size([]) == []


@pytest.mark.parametrize("most", [1, 7, 64, 1000])
@pytest.mark.parametrize("known", [0, 3])
def test_passes_are_full_and_slots_keep_their_prompt(most: int, known: int) -> None:
    lengths = sorted(np.random.default_rng(most).integers(4, 90, 30).tolist(), reverse=True)
    layout = lay_out(lengths, known, most)
    seen = dict.fromkeys(range(len(lengths)), known)
    slots: dict[int, int] = {}
    for place, one in enumerate(layout.passes):
        rows = sum(part.stop - part.start for part in one)
        assert rows == most or (place == len(layout.passes) - 1 and 0 < rows < most)
        assert len({part.slot for part in one}) == len(one) <= layout.num_slots
        for part in one:
            assert part.start == seen[part.prompt]
            assert slots.setdefault(part.prompt, part.slot) == part.slot < layout.num_slots
            seen[part.prompt] = part.stop
    assert list(seen.values()) == lengths
    assert layout.num_slots == max(map(len, layout.passes))


def test_sums_do_not_depend_on_cuts() -> None:
    states = np.random.default_rng(0).normal(size=(301, 8)).astype(np.float32) * 10.0 ** np.arange(8)
    found = []
    for cuts in ([], [1], [100, 200], list(range(1, 301))):
        sums = StateSums(2, 8)
        for part in np.split(states, cuts):
            sums.add(1, part)
        found.append(sums.means([1, 301])[1])
    shared = StateSums(2, 8)
    shared.start([0, 1], states[:40])
    shared.add(1, states[40:])
    found.append(shared.means([40, 301])[1])
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0])
    np.testing.assert_allclose(found[0], states.astype(np.float64).mean(0), rtol=1e-6)


def test_common_prefix() -> None:
    prompts = [np.array(one) for one in ([1, 2, 3, 4], [1, 2, 5, 6], [1, 2, 3])]
    assert common_prefix(prompts).tolist() == [1, 2]
    assert common_prefix(prompts[:1]).tolist() == []
    assert common_prefix([prompts[0], prompts[0]]).tolist() == [1, 2, 3]
