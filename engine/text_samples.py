"""Samples of several cells that are written in one answer, a cell a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from anndata import AnnData

from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.sentences.read import cells_of
from cellscribe.engine.text_groups import MAX_CELLS, MIN_CELLS, TOKENS_PER_GENE, fill_task
from cellscribe.engine.text_model import Progress, TextModel
from cellscribe.engine.text_types import Answer
from cellscribe.engine.types import Sampling
from cellscribe.engine.written_cells import provenance

_TASKS = {
    "": "cells_generation",
    "tissue": "tissue_cells_generation",
    "cell_type": "cell_type_cells_generation",
    "abstract": "abstract_cells_generation",
}  # by what is said about a sample


@dataclass(frozen=True)
class Sample:
    """What every sample is to be like.

    Parameters
    ----------
    num_cells
        Cells of one sample, 5 to 20; a model may write fewer.
    cell_type, tissue, abstract
        Of which type all of them are, of which tissue, or of the study of which abstract; one of these, or none.

    Raises
    ------
    UsageError
        For a number of cells that no prompt takes, an empty text, or more than one of them.
    """

    num_cells: int
    cell_type: str | None = None
    tissue: str | None = None
    abstract: str | None = None

    def __post_init__(self) -> None:
        if not MIN_CELLS <= self.num_cells <= MAX_CELLS:
            raise UsageError(
                f"--cells-per-sample (cells_per_sample) is {self.num_cells}; choose from {MIN_CELLS} to {MAX_CELLS}."
            )
        if len(self.said) > 1:
            raise UsageError(f"a prompt takes one of {', '.join(list(_TASKS)[1:])}; give only one of them.")
        for name, text in self.said.items():
            if not text.strip():
                raise UsageError(f"the {name.replace('_', ' ')} is empty; name one, or leave it out.")

    @property
    def said(self) -> dict[str, str]:
        """What is said about a sample, by name: one entry or none."""
        given = {"cell_type": self.cell_type, "tissue": self.tissue, "abstract": self.abstract}
        return {name: text for name, text in given.items() if text is not None}

    @property
    def task(self) -> str:
        """The task that writes it."""
        return _TASKS["".join(self.said)]


def sample_of(
    cells_per_sample: int | None, cell_type: str | None, tissue: str | None, abstract: str | None
) -> Sample | None:
    """Put options together; None for single cells, of which a prompt says no more than the type (UsageError)."""
    if cells_per_sample is not None:
        return Sample(cells_per_sample, cell_type, tissue, abstract)
    if tissue is not None or abstract is not None:
        raise UsageError(
            "--tissue (tissue) and --abstract (abstract) are about samples of several cells where a bundle reads "
            "sentences; add --cells-per-sample (cells_per_sample), or leave them out."
        )
    return None


def write_samples(
    model: TextModel,
    count: int,
    genes: SentenceGenes,
    line: Inverse,
    sample: Sample,
    *,
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> tuple[AnnData, str]:
    """Let the model write samples of several cells.

    Parameters
    ----------
    count
        How many samples.
    genes, line, sampling, max_new_tokens, batch_size, progress
        As for :func:`cellscribe.engine.text_groups.write_cells`; tokens are those of a whole sample.

    Returns
    -------
    Cells as :func:`cellscribe.engine.text_groups.write_cells` gives them, with the ``sample`` in obs, and what was
    found, in words. Lines beyond the cells that were asked for are left out; so is the last word of a text that ran
    out of tokens, which may be cut, and a sample that failed.

    Raises
    ------
    UsageError
        For fewer than one sample, or samples of less than one token.
    InputError
        When no sample could be written, or no word of any is a gene.
    """
    if count < 1:
        raise UsageError(f"{count} samples are asked for; ask for at least 1.")
    names = [f"sample_{i}" for i in range(count)]
    values = {**sample.said, "num_cells": str(sample.num_cells)}
    prompts = [fill_task(model, sample.task, name, values) for name in names]
    room = model.context - max(len(one) for one in model.encode(sorted(set(prompts))))
    wanted = TOKENS_PER_GENE * model.num_genes * sample.num_cells
    most = min(max(1, room), wanted if max_new_tokens is None else max_new_tokens)
    chosen = sampling or Sampling(0.9, 0.7, model.settings.seed)
    found = model.answers(
        names, prompts, sampling=chosen, max_new_tokens=most,
        batch_size=batch_size, progress=progress,
    )  # fmt: skip
    if all(one.status != "ok" for one in found):
        raise InputError(f"none of {count:,} samples could be written ({found[0].status.removeprefix('failed: ')}).")
    lines = [_lines(one)[: sample.num_cells] for one in found]
    cells, said = cells_of(_cell_names(names, lines), [text for part in lines for text in part], genes, line)
    cells.obs["sample"] = pd.Categorical([name for name, part in zip(names, lines, strict=True) for _ in part])
    for name, text in sample.said.items():
        cells.obs[name] = pd.Categorical([text] * cells.n_obs)
    cells.obs["finish_reason"] = [one.finish_reason for one, part in zip(found, lines, strict=True) for _ in part]
    num_failed = sum(one.status != "ok" for one in found)
    about = provenance(model, sample.task, sample.cell_type, chosen, most, num_failed)
    cells.uns["cellscribe"] = {**about, **sample.said, "cells_per_sample": sample.num_cells}
    return cells, f"{_counted(cells.n_obs, count * sample.num_cells, found)}; {said}"


def num_written(cells: AnnData) -> int:
    """Return of how many samples there are cells."""
    return int(cells.obs["sample"].nunique())


def _lines(one: Answer) -> list[str]:
    """Split an answer into cells; none where it failed."""
    if one.status != "ok":
        return []
    text = one.text
    if one.finish_reason == "length" and text and not text[-1].isspace():
        text = text[: max((i + 1 for i, letter in enumerate(text) if letter.isspace()), default=0)]
    return [line.strip() for line in text.splitlines() if line.strip()]


def _cell_names(names: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"{name}_cell_{j}" for name, part in zip(names, lines, strict=True) for j in range(len(part))]


def _counted(num_cells: int, num_asked: int, found: Sequence[Answer]) -> str:
    """Say how many cells were written, and why not all."""
    said = f"{num_cells:,} of {num_asked:,} cells in {len(found):,} samples"
    failed = [one for one in found if one.status != "ok"]
    if failed:
        said += f", {len(failed):,} samples failed, first {failed[0].name}: {failed[0].status}"
    cut = sum(one.finish_reason == "length" for one in found)
    return said + (f", {cut:,} samples ran out of tokens" if cut else "")
