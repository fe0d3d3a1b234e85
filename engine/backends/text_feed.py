"""What backends with runs of fixed sizes feed all slots at once: one token each, or a few where a label goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Ints
from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.backends.text_state import Rows

# Tokens a row takes in one run: few sizes, as each is bound, captured or compiled for itself.
ONE, FEW = 1, 8


@dataclass(frozen=True)
class Feed:
    """One run of all rows: `tokens` and `positions` int64 [B, w], w of them new at most, the last is `chosen` [B, 1].

    They are written from each row's first position on. `slots` are those whose logits are wanted after it; what other
    rows write is never seen.
    """

    tokens: Ints
    positions: Ints
    chosen: Ints
    slots: Ints

    @property
    def width(self) -> int:
        """Tokens of a row."""
        return int(self.tokens.shape[1])

    def mask(self, capacity: int, window: int = 0) -> npt.NDArray[np.bool_]:
        """Return which cache positions each token sees, bool [B, w, C]; of a `window` the last ones alone."""
        return visible(self.positions, capacity, window)


def visible(positions: Ints, capacity: int, window: int = 0) -> npt.NDArray[np.bool_]:
    """Return which of C cache positions tokens at `positions` int64 [B, T] see, bool [B, T, C]."""
    place = np.arange(capacity)
    seen: npt.NDArray[np.bool_] = place <= positions[:, :, None]
    return seen & (place > positions[:, :, None] - window) if window else seen


def room_for(plan: TextPlan) -> int:
    """Return the positions that a slot needs: a prompt, its text, and what a run of few tokens writes behind it."""
    return plan.longest_prompt + plan.max_new_tokens + (FEW if plan.longest_label else 0)


def feeds(rows: Rows, slots: Sequence[int], known: Ints, capacity: int) -> Iterator[Feed]:
    """Cut the new tokens of some slots into runs of all rows.

    How a slot's tokens are cut depends on their number alone, so that no text depends on its neighbours. A row without
    tokens in a run writes behind what it knows, where its next tokens will be.

    Parameters
    ----------
    rows
        The new tokens, with those of `slots` after each other.
    known
        Positions in the caches of every row, int64 [B], the new ones counted.
    capacity
        Positions of the caches, as many as :func:`room_for` says or more.
    """
    counts = np.diff(np.append(-1, rows.last))
    left = {slot: (int(last - n + 1), int(n)) for slot, last, n in zip(slots, rows.last, counts, strict=True)}
    at = known.copy()
    at[list(slots)] -= counts
    while left:
        is_long = max(n for _, n in left.values()) > ONE
        width = FEW if is_long else ONE
        mine = {slot: (first, min(n, width)) for slot, (first, n) in left.items() if (n > ONE) is is_long}
        tokens, chosen = np.zeros((len(at), width), np.int64), np.zeros((len(at), 1), np.int64)
        for slot, (first, n) in mine.items():
            tokens[slot] = rows.tokens[np.minimum(np.arange(first, first + width), first + n - 1)]
            chosen[slot] = n - 1
        # Behind a row's last token its position is repeated: one beyond the model's would have no embedding.
        starts, lasts = np.minimum(at, capacity - width), np.zeros(len(at), np.int64)
        lasts[list(mine)] = [n - 1 for _, n in mine.values()]
        positions = starts[:, None] + np.minimum(np.arange(width), lasts[:, None])
        done = [slot for slot, (_, n) in mine.items() if n == left[slot][1]]
        yield Feed(tokens, positions, chosen, np.array(done, np.int64))
        for slot, (first, n) in mine.items():
            at[slot] += n
            left[slot] = (first + n, left[slot][1] - n)
        left = {slot: one for slot, one in left.items() if one[1]}


def shared(prefix: Ints, tokens: Ints, least: int) -> int:
    """How many tokens of a prompt are known from a prefix [P]; `least` of them at least are left to run."""
    most = max(0, min(len(prefix), len(tokens) - least))
    same = tokens[:most] == prefix[:most]
    return most if same.all() else int(same.argmin())
