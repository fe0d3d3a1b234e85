"""Prompts of many lengths: which of them share caches, which rows run together, and the mean of their states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Floats, Ints

OnPrompts = Callable[[int], None]  # prompts finished so far


@dataclass(frozen=True)
class Stretch:
    """Positions start..stop-1 of one of several prompts, in a slot."""

    prompt: int
    slot: int
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """Passes of rows, one after the other, and how many slots hold the prompts that are under way at a time."""

    passes: tuple[tuple[Stretch, ...], ...]
    num_slots: int


def by_size(sizes: Sequence[int]) -> list[list[int]]:
    """Put things in order of falling size, and cut where one is less than half as large as the first of its group.

    So no slot of a group is more than twice as large as what is put into it.
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if not groups or 2 * sizes[i] < sizes[groups[-1][0]]:
            groups.append([])
        groups[-1].append(i)
    return groups


def lay_out(lengths: Sequence[int], known: int, most: int) -> Layout:
    """Fill passes of `most` rows with the prompts of these lengths in turn, whose first `known` positions are there.

    A prompt that does not fit goes on in the next pass, so that only the last one has room left.
    """
    passes: list[list[tuple[int, int, int]]] = [[]]
    left = most
    for i, length in enumerate(lengths):
        start = known
        while start < length:
            if not left:
                passes.append([])
                left = most
            stop = min(start + left, length)
            passes[-1].append((i, start, stop))
            left -= stop - start
            start = stop
    num_slots = max(1, max(map(len, passes)))  # a pass has prompts that follow each other: no two share a slot
    return Layout(tuple(tuple(Stretch(i, i % num_slots, a, b) for i, a, b in one) for one in passes), num_slots)


class StateSums:
    """Sums of the states of N prompts of width d, in float64.

    States are added one position after the other, so that a sum does not depend on how a prompt was cut.
    """

    def __init__(self, count: int, width: int) -> None:
        self._sums: npt.NDArray[np.float64] = np.zeros((count, width))

    def start(self, prompts: Sequence[int], states: Floats) -> None:
        """Begin the sums of prompts with states [n, d] that they share."""
        if len(prompts):
            self._sums[list(prompts)] = 0.0
            self.add(prompts[0], states)
            self._sums[list(prompts)] = self._sums[prompts[0]]

    def add(self, prompt: int, states: Floats) -> None:
        """Add the states [n, d] of a prompt's next positions."""
        self._sums[prompt] = np.add.accumulate(np.vstack((self._sums[prompt : prompt + 1], states)), axis=0)[-1]

    def means(self, lengths: Sequence[int]) -> Floats:
        """Divide by the prompts' lengths [N] -> float32 [N, d]."""
        found: Floats = (self._sums / np.array(lengths, np.float64)[:, None]).astype(np.float32)
        return found


def common_prefix(prompts: Sequence[Ints]) -> Ints:
    """Return the tokens that all prompts begin with; none of a single prompt, which gains nothing by it."""
    if len(prompts) < 2:
        return np.zeros(0, np.int64)
    first = prompts[0]
    length = min(map(len, prompts)) - 1
    for other in prompts[1:]:
        same = first[:length] == other[:length]
        length = length if same.all() else int(same.argmin())
    return first[:length]


__all__ = ["Layout", "OnPrompts", "StateSums", "Stretch", "by_size", "common_prefix", "lay_out"]
