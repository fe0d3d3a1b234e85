"""Cells that a model writes, one in every answer or samples of several: what is asked, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from anndata import AnnData

from cellscribe.engine.errors import UsageError
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.sentences.known import checked_words
from cellscribe.engine.text_groups import fill_task
from cellscribe.engine.text_model import Progress, TextModel
from cellscribe.engine.text_samples import Sample
from cellscribe.engine.text_types import Answer
from cellscribe.engine.types import Sampling, check_written
from cellscribe.engine.written_cells import laid_out, provenance, shortfall

TOKENS_PER_GENE = 8
_NAMES = {"cell": "generated", "sample": "sample"}  # that answers are numbered under, by what an answer is


def write_cells(
    model: TextModel,
    count: int,
    genes: SentenceGenes,
    line: Inverse,
    *,
    cell_type: str | None = None,
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> tuple[AnnData, str]:
    """Let the model write cells.

    Parameters
    ----------
    count
        How many.
    genes
        Words that count as genes, the columns of the result.
    line
        What turns ranks into expression.
    cell_type
        What kind of cell; None leaves it to the model.
    sampling
        None draws with top-p 0.9 at temperature 0.7, keyed by the cell's number.
    max_new_tokens
        Longest sentence in tokens; None leaves room for all genes.

    Returns
    -------
    Cells with log10(1 + normalised counts) in X, the sentence in obs and what they depend on in
    ``uns["cellscribe"]``, those that failed left out (the model's ``notice`` says why); and what was found in the
    sentences, in words. Sentences are cut to the genes that were asked for, and lose their last word where the limit of
    tokens may have cut it.

    Raises
    ------
    UsageError
        For fewer than one cell or more than ``MAX_WRITTEN``, sentences of less than one token, or more tokens or genes
        than the context has room for.
    InputError
        When none of many genes has a name that is known, no cell could be written, or no word of any sentence is a
        gene.
    """
    return _write(model, cell_order(count, cell_type), genes, line, sampling, max_new_tokens, batch_size, progress)


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
        As for :func:`write_cells`; tokens are those of a whole sample.

    Returns
    -------
    Cells as :func:`write_cells` gives them, with the ``sample`` in obs, and what was found, in words. Lines beyond the
    cells that were asked for are left out, and so is a sample that failed; a model may write fewer, which the model's
    ``notice`` says.

    Raises
    ------
    UsageError
        For fewer than one sample, or samples of less than one token.
    InputError
        As :func:`write_cells`.
    """
    order = TextOrder("sample", count, sample.task, sample.said, sample.num_cells)
    return _write(model, order, genes, line, sampling, max_new_tokens, batch_size, progress)


def cell_order(count: int, cell_type: str | None = None) -> TextOrder:
    """Return an order of single cells; UsageError for an empty type."""
    if cell_type is not None and not cell_type.strip():
        raise UsageError("the cell type is empty; name one, or leave it out.")
    task = "cell_generation" if cell_type is None else "conditional_cell_generation"
    return TextOrder("cell", count, task, {} if cell_type is None else {"cell_type": cell_type})


@dataclass(frozen=True)
class TextOrder:
    """So many answers (`noun`), each of `num_cells` cells, to a task's prompt that says `said` of them."""

    noun: str
    count: int
    task: str
    said: Mapping[str, str] = field(default_factory=dict)
    num_cells: int = 1

    def __post_init__(self) -> None:
        check_written(self.noun, self.count)

    @property
    def values(self) -> dict[str, str]:
        """What fills the prompt."""
        return {**self.said, "num_cells": str(self.num_cells)}

    @property
    def mend(self) -> str:
        """What to do where the prompt is too long."""
        said = " or ".join(f"the {name.replace('_', ' ')}" for name in self.said)
        return f"shorten {said}" if said else "choose a shorter prompt (--template, template)"


@dataclass(frozen=True)
class AskedCells:
    """The prompts of an order, each with its name, and how the answers are to be written."""

    order: TextOrder
    names: tuple[str, ...]
    prompts: tuple[str, ...]
    sampling: Sampling
    max_new_tokens: int


def asked_cells(
    model: TextModel, order: TextOrder, sampling: Sampling | None = None, max_new_tokens: int | None = None
) -> AskedCells:
    """Make the prompts of an order; parameters as :func:`write_cells`."""
    names = tuple(f"{_NAMES[order.noun]}_{i}" for i in range(order.count))
    prompts = tuple(fill_task(model, order.task, name, order.values) for name in names)
    lengths = [len(one) for one in model.encode(sorted(set(prompts)))]
    room = model.context - max((one for one in lengths if one < model.context), default=1)
    _check_room(model, order, room, max_new_tokens)
    wanted = TOKENS_PER_GENE * model.num_genes * order.num_cells
    most = min(room, wanted if max_new_tokens is None else max_new_tokens)
    return AskedCells(order, names, prompts, sampling or Sampling(0.9, 0.7, model.settings.seed), most)


def cells_from(
    model: TextModel, asked: AskedCells, found: Sequence[Answer], genes: SentenceGenes, line: Inverse
) -> tuple[AnnData, str, str]:
    """Return the cells that answers are, what was found in their sentences, and what falls short of the order."""
    order = asked.order
    per_sample = order.num_cells if order.noun == "sample" else None
    cells, said = laid_out(found, genes, line, order.said, per_sample, model.num_genes)
    num_failed = sum(one.status != "ok" for one in found)
    about = provenance(model, order.task, asked.sampling, asked.max_new_tokens, num_failed)
    cells.uns["cellscribe"] = {
        **about, **order.said, "num_asked": order.count * order.num_cells, "num_written": cells.n_obs,
        **({} if per_sample is None else {"cells_per_sample": per_sample}),
    }  # fmt: skip
    return cells, said, shortfall(found, cells, per_sample)


def _write(
    model: TextModel,
    order: TextOrder,
    genes: SentenceGenes,
    line: Inverse,
    sampling: Sampling | None,
    max_new_tokens: int | None,
    batch_size: int,
    progress: Progress | None,
) -> tuple[AnnData, str]:
    known = checked_words(genes, model.settings.organism, "--like or --genes (like, genes)")
    asked = asked_cells(model, order, sampling, max_new_tokens)
    found = model.answers(
        asked.names, asked.prompts, sampling=asked.sampling, max_new_tokens=asked.max_new_tokens,
        batch_size=batch_size, progress=progress, mend=order.mend,
        frame=model.frame(order.task, order.said),
    )  # fmt: skip
    cells, said, short = cells_from(model, asked, found, genes, line)
    warning = known.warning if known else ""
    model.notice = " ".join(one for one in (warning, model.notice, short) if one)
    return cells, said


def _check_room(model: TextModel, order: TextOrder, room: int, max_new_tokens: int | None) -> None:
    """Refuse sizes that the context leaves no room for, where they were asked for: a gene has a token at least."""
    where = f"and the context of {model.bundle.name} leaves {room:,} tokens behind the prompt"
    if max_new_tokens is not None and max_new_tokens > room:
        raise UsageError(f"max_new_tokens is {max_new_tokens:,}, {where}; choose at most {room:,} (--max-new-tokens).")
    num_genes = model.settings.num_genes
    if num_genes is not None and num_genes * order.num_cells > room:
        most = room // order.num_cells
        raise UsageError(
            f"{num_genes * order.num_cells:,} genes are asked for at once, {where}; choose at most {most:,} of each "
            "cell (--genes-per-cell, genes_per_cell)."
        )
