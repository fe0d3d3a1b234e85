"""Means of last states over prompts, with ONNX Runtime: several prompts of a like length in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import numpy as np

from cellscribe.engine.backends.base import Array, Floats, Ints
from cellscribe.engine.backends.prompt_rows import OnPrompts, StateSums, common_prefix

# ONNX Runtime's softmax sums in an order that depends on the positions of a cache: how many there are must follow from
# the prompt alone.
_BLOCK = 64
_MIN_ROWS = 2  # of a run; one alone would be multiplied in another order

Caches = dict[str, Array]
RunStates = Callable[[Ints, Ints, Caches], Floats]  # tokens [B, T], positions [B, T], caches -> last states [B, T, d]
Cut = Callable[[int, int], Iterable[tuple[int, int]]]


def capacity_of(length: int) -> int:
    """Return the positions of the caches that a prompt is run with, a function of its length alone."""
    return -(-length // _BLOCK) * _BLOCK


class PromptMeans:
    """Works out the mean of the last states of prompts; what all of them begin with is run once for each cache size.

    Parameters
    ----------
    run
        Runs the decoder.
    caches
        Makes empty caches of so many rows and positions.
    cut
        Cuts positions first..last-1 into runs.
    rows
        Tokens of a run, over all prompts in it.
    """

    def __init__(self, run: RunStates, caches: Callable[[int, int], Caches], cut: Cut, rows: int) -> None:
        self._run, self._caches, self._cut, self._rows = run, caches, cut, rows

    def of(self, prompts: Sequence[Ints], width: int, progress: OnPrompts | None = None) -> Floats:
        """Return the means of prompts int64 [P], float32 [N, width]; `progress` hears of prompts as they end."""
        lengths = [len(one) for one in prompts]
        sums, done = StateSums(len(prompts), width), 0
        prefix = common_prefix(prompts)[: max(0, min(lengths) - _MIN_ROWS)]
        prefix = prefix if len(prefix) >= _MIN_ROWS else prefix[:0]
        order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], i))
        for capacity, found in groupby(order, key=lambda i: capacity_of(lengths[i])):
            group = list(found)
            known = self._run_prefix(prefix, capacity, group, sums)
            size = min(len(group), max(1, self._rows // (lengths[group[0]] - len(prefix))))
            caches = self._caches(size, capacity)
            for at in range(0, len(group), size):
                mine = group[at : at + size]
                for name, array in known.items():
                    caches[name][: len(mine), :, : len(prefix)] = array[:, :, : len(prefix)]
                if not self._add([prompts[i] for i in mine], mine, len(prefix), caches, sums):
                    caches = self._caches(size, capacity)  # what is masked counts nothing, but nothing times NaN is NaN
                done += len(mine)
                if progress:
                    progress(done)
        return sums.means(lengths)

    def _run_prefix(self, prefix: Ints, capacity: int, group: Sequence[int], sums: StateSums) -> Caches:
        """Run what all prompts begin with, and start the sums of a group with it; its keys and values."""
        if not len(prefix):
            return {}
        known = self._caches(1, capacity)
        states = [
            self._run(prefix[None, start:stop], np.arange(start, stop)[None], known)[0]
            for start, stop in self._cut(0, len(prefix))
        ]
        sums.start(group, np.concatenate(states))
        return known

    def _add(self, prompts: Sequence[Ints], whose: Sequence[int], known: int, caches: Caches, sums: StateSums) -> bool:
        """Run what is not known of prompts by falling length; say whether all states are finite.

        Rows after the end of a shorter prompt count nothing: none of its own sees them.
        """
        is_finite = True
        for start, end in self._cut(known, len(prompts[0])):
            stop = max(end, start + _MIN_ROWS)
            live = [one for one in prompts if len(one) > start]
            tokens = np.zeros((len(live), stop - start), np.int64)
            for row, one in enumerate(live):
                tokens[row, : len(one[start:stop])] = one[start:stop]
            positions = np.tile(np.arange(start, stop), (len(live), 1))
            states = self._run(tokens, positions, {name: array[: len(live)] for name, array in caches.items()})
            for row, one in enumerate(live):
                sums.add(whose[row], states[row, : len(one) - start])
            is_finite &= bool(np.isfinite(states).all())
        return is_finite
