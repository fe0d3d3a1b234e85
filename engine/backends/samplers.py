"""How the tokens of every slot are chosen: all alike, or each as its admission says."""

from __future__ import annotations

from cellscribe.engine.backends.base import Admission, Floats, Ints, SlotPlan
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.decode.sampling import Greedy, choose, choose_each
from cellscribe.engine.errors import UsageError
from cellscribe.engine.keyed import UInt64
from cellscribe.engine.types import Sampling


def sampling_of(plan: SlotPlan | TextPlan, one: Admission | Prompted) -> Sampling:
    """Return what chooses the tokens of an admission; UsageError for one of its own where the plan mixes none."""
    if one.sampling is None:
        return plan.sampling
    if not plan.mixes:
        raise UsageError(
            f"slot {one.slot} is to be filled with a sampling of its own ({one.sampling.label()}), and slots were "
            "opened for one that all share; open them with mixes=True."
        )
    return one.sampling


def may_be_greedy(plan: SlotPlan | TextPlan) -> bool:
    """Whether a slot of the plan may take its most probable token."""
    return plan.mixes or plan.sampling.is_greedy


class Samplers:
    """What chooses the tokens of each of B slots, for backends that choose them on the host."""

    def __init__(self, plan: SlotPlan | TextPlan, rows: int, greedy: Greedy | None = None) -> None:
        self._plan, self._greedy = plan, greedy
        self._each = [plan.sampling] * rows

    def begin(self, one: Admission | Prompted) -> None:
        """Start a text; UsageError as :func:`sampling_of`."""
        self._each[one.slot] = sampling_of(self._plan, one)

    def is_greedy(self, slot: int) -> bool:
        """Whether a slot takes its most probable token."""
        return self._each[slot].is_greedy

    def choose(self, slots: Ints, logits: Floats, keys: UInt64, lengths: Ints) -> tuple[Ints, Floats]:
        """Choose tokens of n slots from logits [n, V], keys [n] and lengths [n] of their texts."""
        if not self._plan.mixes:
            return choose(logits, self._plan.sampling, keys, lengths, self._greedy)
        each = [self._each[slot] for slot in slots.tolist()]
        return choose_each(logits, each, keys, lengths, self._greedy)
