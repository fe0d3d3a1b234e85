"""Samples of several cells that are written in one answer, a cell a line."""

from __future__ import annotations

from dataclasses import dataclass

from cellscribe.engine.errors import UsageError
from cellscribe.engine.text_groups import MAX_CELLS, MIN_CELLS

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
