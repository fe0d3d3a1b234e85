"""The decoder's state at a signal token: run once more from what the caches hold, and handed out with the token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cellscribe.engine.backends.base import Chosen, Floats

RunSignals = Callable[[list[int]], Floats]  # slots [n] -> states float32 [n, d]


def with_conditions(chosen: Sequence[Chosen], signal_id: int, run: RunSignals) -> list[Chosen]:
    """Add the states at `signal_id` to what was chosen; `run` feeds it to slots whose text ends with it.

    The last token of a slot is one that no run has fed yet, so that its own keys and values are all that is computed.
    """
    told = list(chosen)
    if signal_id < 0:
        return told
    for at, one in enumerate(told):
        places = np.flatnonzero(one.token_ids == signal_id)
        if not len(places):
            continue
        found = run(one.slots[places].tolist())
        conditions = np.full((len(one.slots), found.shape[1]), np.nan, np.float32)
        conditions[places] = found
        told[at] = replace(one, conditions=conditions)
    return told
