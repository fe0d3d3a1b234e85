"""Prompts in, texts out: prompts of a like length share slots, whose caches are as large as the longest needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Slots
from cellscribe.engine.backends.prompt_rows import by_size, common_prefix
from cellscribe.engine.backends.text import TextBackend, TextPlan
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.decode.scheduler import Scheduler, Text, TextRequest
from cellscribe.engine.errors import RoomError, UsageError
from cellscribe.engine.types import Sampling, check_whole

Ints = npt.NDArray[np.int64]
OnText = Callable[[int, int], None]  # texts finished, tokens so far
OnNotice = Callable[[str], None]

_CHUNK = 4096  # prompts that are ordered by length together


@dataclass(frozen=True)
class TextOptions:
    """How texts are written.

    Parameters
    ----------
    max_new_tokens
        Longest text; where texts are labels the longest label counts if it is longer.
    num_slots
        Texts in progress at a time.
    labels
        What every text must be one of; None leaves them free.
    all_labels
        Whether all labels get their log-probability (``Text.label_logprobs``), and the best of them is written. Without
        it the best token is taken again and again, which asks the model fewer times and may end at another label.

    Raises
    ------
    UsageError
        For texts of less than one token, or labels that are to be drawn.
    """

    sampling: Sampling
    max_new_tokens: int
    num_slots: int
    eos_ids: frozenset[int]
    labels: LabelTrie | None = None
    all_labels: bool = False

    def __post_init__(self) -> None:
        check_whole("max_new_tokens", self.max_new_tokens)
        if self.labels is not None and not self.sampling.is_greedy:
            raise UsageError("labels are not drawn: the likeliest is taken; leave the temperature out, or the labels.")

    @property
    def most_steps(self) -> int:
        """Most times that the model is asked for a text."""
        return max(self.longest, len(self.labels.visits)) if self.labels and self.all_labels else self.longest

    @property
    def longest(self) -> int:
        """Most new tokens of a text."""
        return self.max_new_tokens if self.labels is None else max(map(len, self.labels.sequences))


def write_texts(
    backend: TextBackend,
    prompts: Sequence[Ints],
    keys: Sequence[int],
    options: TextOptions,
    progress: OnText | None = None,
    notice: OnNotice | None = None,
) -> Iterator[Text]:
    """Write a text after every prompt int64 [P]; texts come as they are finished, ``request.index`` says whose.

    Parameters
    ----------
    keys
        Identity of every prompt, that draws are keyed by.
    notice
        Hears in a sentence of slots that there was no room for.

    Raises
    ------
    InputError
        When a prompt and its text do not fit the model's context.
    BackendError
        When the device fails.
    """
    done = tokens = 0
    for order in _groups([len(one) + options.longest for one in prompts]):
        plan = TextPlan(
            num_slots=min(options.num_slots, len(order)),
            longest_prompt=len(prompts[order[0]]),
            max_new_tokens=options.longest,
            sampling=options.sampling,
            eos_ids=options.eos_ids,
            prefix=tuple(common_prefix([prompts[i] for i in order]).tolist()),
            longest_label=options.longest if options.labels else 0,
        )
        requests = (TextRequest(i, keys[i], prompts[i], options.labels, all_labels=options.all_labels) for i in order)
        for event in open_scheduler(backend.open_text_slots, plan, options, notice).run(requests):
            tokens += event.token_id is not None
            if event.text.is_finished:
                done += 1
                yield event.text
            if progress:
                progress(done, tokens)


def _groups(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Give prompts by falling size, chunk by chunk; none of a group has caches more than twice as large as it needs."""
    for start in range(0, len(sizes), _CHUNK):
        for group in by_size(sizes[start : start + _CHUNK]):
            yield [start + i for i in group]


def open_scheduler(
    open_slots: Callable[[TextPlan], Slots], plan: TextPlan, options: TextOptions, notice: OnNotice | None = None
) -> Scheduler:
    """Open the slots; as many as there is room for, which is said, where it is not enough for all."""
    slots, number = open_room(open_slots, plan, notice)
    return Scheduler(slots, number, eos_ids=options.eos_ids, max_new_tokens=options.most_steps)


def open_room(
    open_slots: Callable[[TextPlan], Slots], plan: TextPlan, notice: OnNotice | None = None
) -> tuple[Slots, int]:
    """Open the slots of a plan, or as many as there is room for; return how many these are, too."""
    said = ""
    while True:
        try:
            slots = open_slots(plan)
        except RoomError as error:
            if plan.num_slots == 1:
                raise
            fitting = error.num_fitting if 0 < error.num_fitting < plan.num_slots else plan.num_slots // 2
            plan, said = replace(plan, num_slots=fitting), f"{str(error).removesuffix('.')}; went on with {fitting}."
            continue
        if notice and said:
            notice(said)
        return slots, plan.num_slots


__all__ = ["TextOptions", "common_prefix", "open_room", "open_scheduler", "write_texts"]
