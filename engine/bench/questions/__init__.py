"""The questions, one file each; those here need no more than a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cellscribe.engine.bench.case import Group
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.questions import (
    admission,
    capacity,
    cells,
    encoding,
    lengths,
    memory,
    prompts,
    reading,
    slots,
)
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.errors import UsageError

Groups = Callable[[Sequence[Contender], Settings], Iterator[Group]]


@dataclass(frozen=True)
class Question:
    """A question: its name, its words, its groups of cases, and whether only a bundle that writes texts can answer."""

    name: str
    title: str
    groups: Groups
    needs_decoder: bool = True


QUESTIONS = {
    one.name: one
    for one in (
        Question("slots", "How long does a step take with more slots?", slots.groups),
        Question("lengths", "How long do whole texts take?", lengths.groups),
        Question("memory", "What does a step pay for a longer memory?", memory.groups),
        Question("capacity", "Does a step pay for room in the cache that is not in use?", capacity.groups),
        Question("prompts", "How long does it take to admit a cell?", prompts.groups),
        Question("admission", "What does continuous admission gain over static batches?", admission.groups),
        Question("encoding", "How long does the encoder take?", encoding.groups, needs_decoder=False),
        Question("reading", "How fast are cells read and tokenised?", reading.groups, needs_decoder=False),
        Question("cells", "Does the cost of a cell stay flat with more cells?", cells.groups),
    )
}


def questions_named(names: Sequence[str], describes: bool = True) -> tuple[Question, ...]:
    """Return questions by name, in their own order; all that a bundle can answer for no names.

    Raises
    ------
    UsageError
        For an unknown name, or a question that needs a decoder where the bundle has none.
    """
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown:
        raise UsageError(f"the question {unknown[0]!r} is not known; choose from {', '.join(QUESTIONS)}.")
    if not names:
        return tuple(one for one in QUESTIONS.values() if describes or not one.needs_decoder)
    chosen = tuple(one for name, one in QUESTIONS.items() if name in names)
    lost = [one.name for one in chosen if one.needs_decoder and not describes]
    if lost:
        raise UsageError(f"the bundle holds an encoder alone and cannot answer {lost[0]!r}; leave that question out.")
    return chosen
