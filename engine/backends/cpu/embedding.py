"""Means of last states over prompts, with the native library: rows of many prompts in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cellscribe.engine.backends.base import Floats, Ints
from cellscribe.engine.backends.cpu.passes import Passes
from cellscribe.engine.backends.cpu.text_loading import NativeTextDecoder
from cellscribe.engine.backends.prompt_rows import Layout, OnPrompts, StateSums, by_size, common_prefix, lay_out
from cellscribe.engine.errors import RoomError

OpenPasses = Callable[[int, int], Passes]  # slots, positions of each


class PromptMeans:
    """Works out the mean of the last states of prompts.

    Prompts of a like length share slots, rows of several run together, and the tokens that all begin with are run
    once a group. A mean has the same bits whatever the other prompts are: rows do not touch each other, and a prompt's
    states are summed position by position.

    Parameters
    ----------
    open_passes
        Takes room for slots; RoomError where there is none.
    piece
        Rows of a pass.
    """

    def __init__(self, open_passes: OpenPasses, decoder: NativeTextDecoder, piece: int) -> None:
        self._open, self._decoder, self._piece = open_passes, decoder, piece

    def of(self, prompts: Sequence[Ints], width: int, progress: OnPrompts | None = None) -> Floats:
        """Return the means of prompts int64 [P], float32 [N, width]; `progress` hears of prompts as they end."""
        lengths = [len(one) for one in prompts]
        sums, prefix, done = StateSums(len(prompts), width), common_prefix(prompts), 0
        for group in by_size(lengths):
            mine = [prompts[i] for i in group]
            passes, layout = self._take_room([len(one) for one in mine], len(prefix))
            if len(prefix):
                slots = np.full(len(prefix), layout.num_slots)
                sums.start(group, self._run(passes, prefix, slots, np.arange(len(prefix))))
            for pass_ in layout.passes:
                for one in pass_:
                    if len(prefix) and one.start == len(prefix):
                        passes.copy(layout.num_slots, one.slot, passes.shape.n_layers, len(prefix))
                tokens = np.concatenate([mine[one.prompt][one.start : one.stop] for one in pass_])
                slots = np.concatenate([np.full(one.stop - one.start, one.slot) for one in pass_])
                positions = np.concatenate([np.arange(one.start, one.stop) for one in pass_])
                states, at = self._run(passes, tokens, slots, positions), 0
                for one in pass_:
                    count = one.stop - one.start
                    sums.add(group[one.prompt], states[at : at + count])
                    at += count
                    done += one.stop == len(mine[one.prompt])
                if progress:
                    progress(done)
        return sums.means(lengths)

    def _take_room(self, lengths: Sequence[int], known: int) -> tuple[Passes, Layout]:
        """Open slots for prompts by falling length; for shorter passes, which need fewer, where there is no room."""
        most = self._piece
        while True:
            layout = lay_out(lengths, known, most)
            try:
                return self._open(layout.num_slots + bool(known), lengths[0]), layout
            except RoomError:
                if layout.num_slots == 1:
                    raise
                most = max(1, most // 2)

    def _run(self, passes: Passes, tokens: Ints, slots: Ints, positions: Ints) -> Floats:
        """Run rows, a piece at a time, and return their last states [n, d]."""
        found = [
            passes.states(
                self._decoder.embed_at(tokens[start : start + self._piece], positions[start : start + self._piece]),
                np.ascontiguousarray(slots[start : start + self._piece]),
                np.ascontiguousarray(positions[start : start + self._piece]),
            )
            for start in range(0, len(tokens), self._piece)
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)
