"""What one call of the model made of some cells: the value every output is written from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.labels import Labelled
from cellscribe.engine.types import AttentionRecord, Description

NUM_NAMED_CELLS = 3  # cells named in a sentence about failures
_NUM_REASONS = 3  # reasons given in one
_NUMBER = re.compile(r"(?<![\w.-])\d+(?:,\d{3})*(?!\w|\.\d)")  # whole and alone, unlike those of CD3 and cell-1


def _no_rows() -> npt.NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Run:
    """The result of describing or embedding cells.

    Parameters
    ----------
    rows
        int64 [N], the input's row of each result; empty for pools.
    descriptions
        One per result, in input order; empty when the cells were only embedded.
    embeddings
        float32 [N, d], one vector per result, or None.
    attention
        The full cross-attention of each text, where it was asked for.
    gene_report
        How the input's genes were matched; ``sentence`` says it in words.
    settings
        What the result depends on: ``bundle`` (name), ``bundle_hash``, ``precision``, ``backend`` (device and
        provider in words), ``sampling`` (label), ``seed``, ``max_new_tokens``, ``input`` (the file's name),
        ``fingerprint``, ``values`` (which values were used) and ``versions``.
    pooled_by
        The obs column whose groups were described instead of single cells, or None.
    pool_of
        int64 [n_cells] over the whole input: the result that each cell's pool became, -1 for none; pools only.
    cell_ids
        Names of the results of a run that only embedded; taken from the descriptions otherwise.
    notice
        A sentence about the run that is no failure (fewer slots than asked for); empty when there is none.
    why_lost
        For a run that only embedded: why a result, by its place, has no vector, where more is known than that.
    labels
        The labels of the results where they were annotated; the descriptions then say what was written and how it went.
    """

    rows: npt.NDArray[np.int64] = field(default_factory=_no_rows)
    descriptions: tuple[Description, ...] = ()
    embeddings: npt.NDArray[np.float32] | None = None
    attention: tuple[AttentionRecord, ...] = ()
    gene_report: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    pooled_by: str | None = None
    pool_of: npt.NDArray[np.int64] | None = None
    cell_ids: tuple[str, ...] = ()
    notice: str = ""
    why_lost: Mapping[int, str] = field(default_factory=dict)
    labels: Labelled | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Cell ids (or pool names), in input order."""
        return self.cell_ids or tuple(one.cell_id for one in self.descriptions)

    @property
    def noun(self) -> str:
        """What a result stands for: "cell" or "pool"."""
        return "pool" if self.pooled_by else "cell"

    @property
    def failed(self) -> tuple[Description, ...]:
        """The results that have no text (or, when only embedded, no vector), in input order."""
        if self.descriptions or self.embeddings is None:
            return tuple(one for one in self.descriptions if not one.is_ok)
        lost = np.flatnonzero(np.isnan(self.embeddings).any(axis=1))
        why = "nothing that the model reads is expressed in it"
        return tuple(
            Description(self.names[place], status=f"failed: {self.why_lost.get(int(place), why)}") for place in lost
        )

    @property
    def num_tokens(self) -> int:
        """Tokens generated over all results."""
        return sum(one.num_tokens for one in self.descriptions)

    def failure_sentence(self) -> str:
        """Say how many results failed, why, and name a few of each; empty when none did."""
        if not self.failed:
            return ""
        details = reasons_of((one.cell_id, one.status) for one in self.failed)
        verb = "annotated" if self.labels else "described" if self.descriptions else "embedded"
        return f"{len(self.failed):,} of {count(len(self.names), self.noun)} could not be {verb}: {details}."


def count(number: int, noun: str) -> str:
    """Write a number with its noun: "1 cell", "1,020 cells"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def reasons_of(failed: Iterable[tuple[str, str]]) -> str:
    """Say why results failed, from their names and statuses, and name a few of each reason.

    Reasons that differ in numbers alone, as in how long a prompt is, are one: "of 12 to 40 tokens".
    """
    alike: dict[str, dict[str, str]] = {}
    for name, status in failed:
        why = status.removeprefix("failed: ")
        alike.setdefault(_NUMBER.sub("#", why), {})[name] = why
    told = [f"{_spanned([*one.values()])} ({_some([*one])})" for one in alike.values()]
    more = len(told) - _NUM_REASONS
    return "; ".join([*told[:_NUM_REASONS], *([f"and {count(more, 'other reason')}"] if more > 0 else [])])


def _spanned(reasons: Sequence[str]) -> str:
    """Return one reason for all, with the least and the greatest of numbers that differ."""
    spans = iter([_span(texts) for texts in zip(*map(_NUMBER.findall, reasons), strict=True)])
    return _NUMBER.sub(lambda _: next(spans), reasons[0])


def _span(texts: Sequence[str]) -> str:
    numbers = sorted(int(one.replace(",", "")) for one in texts)
    return texts[0] if numbers[0] == numbers[-1] else f"{numbers[0]:,} to {numbers[-1]:,}"


def _some(names: list[str]) -> str:
    shown, hidden = names[:NUM_NAMED_CELLS], len(names) - NUM_NAMED_CELLS
    return ", ".join(shown) + (f" and {hidden:,} more" if hidden > 0 else "")
