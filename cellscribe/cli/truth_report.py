"""The page of ``generate --report``: written cells beside real ones, checked before any cell is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.compare_settings import CompareSettings
from cellscribe.engine.instruct.compared_cells import check_shared
from cellscribe.engine.instruct.comparison import compare_cells
from cellscribe.engine.labelling.expression import gene_names
from cellscribe.engine.labelling.majority import names_in
from cellscribe.engine.output.comparison_report import write_comparison_report
from cellscribe.engine.output.files import check_output

_SETTINGS = CompareSettings(same_types=True)


@dataclass(frozen=True)
class TruthReport:
    """A page to write, the real cells that it compares with, and the column of obs with their types."""

    page: Path
    truth: Path
    label: str

    def check(self, output: Path, fields: Mapping[str, str], count: int) -> None:
        """Make sure that so many cells of a type, to be written to `output`, can be compared.

        Raises
        ------
        UsageError
            When no type is asked for, either side has too few cells, or a file would be written over.
        InputError
            When the real cells cannot be read.
        """
        check_output(output, self.truth, (".h5ad",))
        check_output(self.page, self.truth, (".html",))
        wanted, fewest = fields.get("cell_type"), _SETTINGS.min_cells
        if wanted is None:
            raise UsageError("--report compares cells of one type with real ones; name it with --cell-type.")
        if count < fewest:
            raise UsageError(
                f"--report compares neighbours of {fewest} cells at least and -n is {count}; ask for more."
            )
        with open_cells(self.truth) as source:
            found = names_in(source.obs_column(self.label)).count(wanted)
        if not found:
            raise UsageError(
                f"no cell of {self.truth} is {wanted!r} in the obs column {self.label!r}; write the type alike, or "
                "name another column with --truth-label."
            )
        if found < fewest:
            raise UsageError(
                f"{found} of the cells of {self.truth} have the type {wanted!r} and {fewest} are needed for --report; "
                "give other real cells, or leave the report out."
            )

    def check_genes(self, genes: Sequence[str], bundle: str) -> None:
        """Raise InputError when the real cells have too few of the genes that are written."""
        with open_cells(self.truth) as source:
            check_shared((bundle, genes), (source.name, gene_names(source)))

    def write(self, output: Path) -> None:
        """Compare the cells of `output`, whose values are counts or their means, and write the page."""
        with open_cells(output, values="counts") as written:
            found = compare_cells(written, self.truth, label_real=self.label, settings=_SETTINGS)
        write_comparison_report(found, self.page)
