"""Prompts in, texts out: prompts are encoded a few at a time, as slots become free for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from cellscribe.engine.backends.instruct import EncoderPrompt, InstructBackend
from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.decode.scheduler import Text, TextRequest
from cellscribe.engine.instruct.spec import InstructInput
from cellscribe.engine.text_writer import OnNotice, OnText, TextOptions, open_scheduler

_ENCODED = 32  # prompts that are encoded together


@dataclass(frozen=True, eq=False)
class Asked:
    """One prompt: its index in the run, the key that draws are keyed by, and what the encoder reads."""

    index: int
    key: int
    prompt: EncoderPrompt


def write_answers(
    backend: InstructBackend,
    spec: InstructInput,
    asked: Iterable[Asked],
    longest: int,
    options: TextOptions,
    *,
    wants_signals: bool = False,
    progress: OnText | None = None,
    notice: OnNotice | None = None,
) -> Iterator[Text]:
    """Write a text after every prompt; texts come as they are finished, ``request.index`` says whose.

    Parameters
    ----------
    asked
        Prompts; they are taken as they are needed.
    longest
        Tokens of the longest of them, its cell's positions counted.
    wants_signals
        Whether the decoder's state at a signal token that ends a text is wanted (``Text.condition``).
    notice
        Hears in a sentence of slots that there was no room for.

    Raises
    ------
    BackendError
        When the device fails.
    """
    plan = TextPlan(
        num_slots=options.num_slots,
        longest_prompt=1,
        max_new_tokens=options.longest,
        sampling=options.sampling,
        eos_ids=options.eos_ids,
        longest_label=options.longest if options.labels else 0,
        longest_memory=longest,
        signal_id=spec.signal_id if wants_signals else -1,
    )
    done = tokens = 0
    scheduler = open_scheduler(backend.open_instruct_slots, plan, options, notice)
    for event in scheduler.run(_requests(backend, spec, asked, options)):
        tokens += event.token_id is not None
        if event.text.is_finished:
            done += 1
            yield event.text
        if progress:
            progress(done, tokens)


def _requests(
    backend: InstructBackend, spec: InstructInput, asked: Iterable[Asked], options: TextOptions
) -> Iterator[TextRequest]:
    start, left = np.array([spec.start_id], np.int64), iter(asked)
    while some := list(islice(left, _ENCODED)):
        for one, states in zip(some, backend.encode_prompts([one.prompt for one in some]), strict=True):
            yield TextRequest(one.index, one.key, start, options.labels, all_labels=options.all_labels, memory=states)
