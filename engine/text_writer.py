"""Prompts in, texts out: prompts are put in order of their length, and caches are as large as the longest needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.text import TextBackend, TextPlan
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.decode.scheduler import Scheduler, Text, TextRequest
from cellscribe.engine.errors import RoomError
from cellscribe.engine.types import Sampling

Ints = npt.NDArray[np.int64]
OnText = Callable[[int, int], None]  # texts finished, tokens so far

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
    """

    sampling: Sampling
    max_new_tokens: int
    num_slots: int
    eos_ids: frozenset[int]
    labels: LabelTrie | None = None
    all_labels: bool = False

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
) -> Iterator[Text]:
    """Write a text after every prompt int64 [P]; texts come as they are finished, ``request.index`` says whose.

    Parameters
    ----------
    keys
        Identity of every prompt, that draws are keyed by.

    Raises
    ------
    InputError
        When a prompt and its text do not fit the model's context.
    BackendError
        When the device fails.
    """
    done = tokens = 0
    for start in range(0, len(prompts), _CHUNK):
        order = sorted(range(start, min(start + _CHUNK, len(prompts))), key=lambda i: (-len(prompts[i]), i))
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
        for event in _scheduler(backend, plan, options).run(requests):
            tokens += event.token_id is not None
            if event.text.is_finished:
                done += 1
                yield event.text
            if progress:
                progress(done, tokens)


def _scheduler(backend: TextBackend, plan: TextPlan, options: TextOptions) -> Scheduler:
    """Open the slots; half as many, and again, where there is no room for so many."""
    while True:
        try:
            slots = backend.open_text_slots(plan)
        except RoomError:
            if plan.num_slots == 1:
                raise
            plan = replace(plan, num_slots=plan.num_slots // 2)
            continue
        return Scheduler(slots, plan.num_slots, eos_ids=options.eos_ids, max_new_tokens=options.most_steps)


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


__all__ = ["TextOptions", "common_prefix", "write_texts"]
