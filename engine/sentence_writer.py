"""The part of a bundle that reads cells as sentences, as a user meets it, that writes cells: generate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anndata import AnnData

from cellscribe.engine.cells.given import Cells, opened
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.family_model import FamilyModel
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.sentences.words import check_choice, check_reading, stand_in, words_and_line
from cellscribe.engine.text_cells import write_cells, write_samples
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_samples import sample_of
from cellscribe.engine.types import Sampling


class SentenceWriter(FamilyModel):
    """A bundle that writes cells as sentences; a base."""

    def __init__(self, text: TextModel) -> None:
        self.text = text
        super().__init__(text)

    @property
    def notice(self) -> str:
        """What should be known about the last answers, as fewer slots than asked for; empty when there is nothing."""
        return self.text.notice

    def generate(
        self,
        cell_type: str | None = None,
        n: int = 10,
        *,
        like: Cells | None = None,
        genes: str | Path | Sequence[str] | None = None,
        fit: str | Path | Inverse | None = None,
        cells_per_sample: int | None = None,
        tissue: str | None = None,
        abstract: str | None = None,
        temperature: float = 0.7,
        top_p: float | None = None,
        max_new_tokens: int | None = None,
        batch_size: int = 8,
        layer: str | None = None,
        values: ValueChoice = "auto",
    ) -> AnnData:
        """Write cells as sentences, and turn them into expression.

        Parameters
        ----------
        cell_type, max_new_tokens, batch_size
            As for :func:`cellscribe.engine.text_cells.write_cells`.
        n
            How many; of samples where `cells_per_sample` is given.
        cells_per_sample, tissue, abstract
            Let every answer be a sample of so many cells, as :class:`cellscribe.engine.text_samples.Sample`; obs says
            which ``sample`` a cell is of.
        like, genes, fit
            What turns sentences into cells, as for :func:`cellscribe.engine.sentences.words.words_and_line`; of the
            packaged bundle ``demo-c2s`` the packaged cells where none is given.
        temperature, top_p
            How tokens are drawn; temperature 0 writes the same cell every time. Without `top_p` it is 0.9 where they
            are drawn.
        layer, values
            Of `like`, as for :meth:`cellscribe.engine.model.Model.describe`.

        Returns
        -------
        Cells with log10(1 + normalised counts) in X, and the sentence they were made of in obs.
        """
        check_reading(like is not None, layer, values)
        like = stand_in(self.text.bundle.folder, like, genes, fit) or like
        check_choice(like is not None, genes is not None, fit is not None)
        sample = sample_of(cells_per_sample, cell_type, tissue, abstract)
        sampling = Sampling.of(top_p, temperature, self.text.settings.seed)
        if like is None:
            words, line = words_and_line(None, genes, fit)
        else:
            with opened(like, layer, values) as source:
                words, line = words_and_line(source)
        if sample is not None:
            return write_samples(
                self.text, n, words, line, sample, sampling=sampling, max_new_tokens=max_new_tokens,
                batch_size=batch_size,
            )[0]  # fmt: skip
        return write_cells(
            self.text, n, words, line, cell_type=cell_type, sampling=sampling, max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )[0]  # fmt: skip
