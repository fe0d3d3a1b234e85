"""A bundle that reads cells as sentences, applied to opened cells: sentences, answers and vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import UsageError
from cellscribe.engine.keyed import cell_keys, stream_keys
from cellscribe.engine.sentences.frame import PLAIN, Frame
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.ranked import rank_genes, to_sentences
from cellscribe.engine.sentences.templates import ANNOTATION
from cellscribe.engine.sentences.transform import TIES
from cellscribe.engine.text_answers import Progress, Wishes, answers_of
from cellscribe.engine.text_bundle import Ints, TextBundle
from cellscribe.engine.text_types import Answer
from cellscribe.engine.types import Sampling

Rows = npt.NDArray[np.int64]

__all__ = ["LESS", "MAX_SLOTS", "NO_GENE", "Ints", "Progress", "Rows", "TextModel"]

_BLOCK = 1024
MAX_SLOTS = 512
NO_GENE = "no gene is expressed in it"
LESS = "choose fewer genes (--genes-per-cell, genes_per_cell) or shorter texts"  # where a prompt is too long


@dataclass
class TextModel(TextBundle):
    """A bundle that reads cells as sentences on one device, with what it says about cells; see :class:`TextBundle`."""

    def sentences(self, source: CellSource, rows: Rows | None = None) -> tuple[tuple[str, ...], list[str]]:
        """Return names and sentences of cells; an empty sentence where a cell expresses nothing."""
        wanted = np.arange(source.n_cells) if rows is None else rows
        genes, names, texts = SentenceGenes.of_cells(source), list[str](), list[str]()
        self.prompts.check(f"a gene name of {source.name}", " ".join(genes.words))
        for block in source.blocks(wanted, _BLOCK):
            mine = source.obs_names[block.rows]
            keys = stream_keys(self.settings.seed, cell_keys(mine), TIES)
            names += [str(name) for name in mine]
            texts += to_sentences(rank_genes(block.part, genes, keys, self.num_genes), genes)
        return tuple(names), texts

    def about_cells(
        self,
        source: CellSource,
        task: str = ANNOTATION,
        *,
        rows: Rows | None = None,
        labels: Sequence[str] | None = None,
        all_labels: bool = False,
        values: Mapping[str, str] | None = None,
        sampling: Sampling | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 8,
        progress: Progress | None = None,
    ) -> tuple[Answer, ...]:
        """Answer a task about every cell.

        Parameters
        ----------
        task
            One that asks about a single cell.
        labels
            What answers must be one of; None leaves the model free.
        all_labels
            Ask for the log-probability of every label, and answer with the best.
        values
            More values for the prompt.

        Raises
        ------
        UsageError
            For an unknown task or labels that are alike.
        """
        names, sentences = self.sentences(source, rows)
        texts = self._prompts(task, names, sentences, values)
        empty = {i: NO_GENE for i, one in enumerate(sentences) if not one}
        return self.answers(
            names, texts, empty, labels=labels, all_labels=all_labels, sampling=sampling,
            max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress, frame=self.frame(task, values),
        )  # fmt: skip

    def answers(
        self,
        names: Sequence[str],
        texts: Sequence[str],
        lost: Mapping[int, str] | None = None,
        *,
        labels: Sequence[str] | None = None,
        all_labels: bool = False,
        sampling: Sampling | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 8,
        progress: Progress | None = None,
        mend: str = LESS,
        frame: Frame = PLAIN,
    ) -> tuple[Answer, ...]:
        """Answer prompts; those of `lost` fail for the reason given there, as do those beyond the context.

        `mend` says what to do about the latter, and `frame` what answers say around their value: labels are written
        so, and what is answered is that value. White space that a prompt ends in is taken for the answer's: as tokens
        it belongs to the word behind it.

        Raises
        ------
        UsageError
            For no slots or too many, texts of less than one token, or labels that cannot be told apart.
        """
        if not 1 <= batch_size <= MAX_SLOTS:
            raise UsageError(f"batch_size is {batch_size}; choose a whole number from 1 to {MAX_SLOTS}.")
        wishes = Wishes(
            labels, all_labels, sampling or Sampling(), max_new_tokens, batch_size, progress, mend, frame,
        )  # fmt: skip
        found, said = answers_of(self, self.runtime, names, texts, lost or {}, wishes)
        self.notice = " ".join([*([self._remark] if self._remark else []), *said])
        return found

    def _prompts(
        self, task: str, names: Sequence[str], sentences: Sequence[str], values: Mapping[str, str] | None = None
    ) -> list[str]:
        """Fill the prompts of a task about single cells."""
        prompts = self.prompts
        return [
            prompts.of_cell(self.prompt_of(task, name), sentence, values)
            for name, sentence in zip(names, sentences, strict=True)
        ]
