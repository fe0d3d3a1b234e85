"""Two sets of cells made comparable: the genes that both have, a keyed draw of cells, one normalisation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cellscribe.engine.cells import CellSource
from cellscribe.engine.cells.logarithm import linear, log_base_of, totals_of
from cellscribe.engine.errors import InputError
from cellscribe.engine.keyed import cell_keys, draws, stream_keys
from cellscribe.engine.labelling.expression import gene_names
from cellscribe.engine.labelling.majority import names_in
from cellscribe.engine.output.run import count

Ints = npt.NDArray[np.int64]

MIN_GENES = 50  # that both sides must have
TARGET = 1e4  # counts a cell is scaled to
_DRAW = 18  # stream of the draws that choose cells


@dataclass(frozen=True, eq=False)
class ComparedCells:
    """Cells of one side, in the order of their names, so that the order of the file plays no part.

    Parameters
    ----------
    source
        Name of what they come from.
    cell_ids, types
        Of each cell [N]; every cell has a type.
    values
        log1p of values per 10,000 over the shared genes, CSR float32 [N, S].
    num_all
        Cells of the source.
    num_untyped
        Those without a type, which are left out.
    notes
        Sentences about the values.
    """

    source: str
    cell_ids: tuple[str, ...]
    types: tuple[str, ...]
    values: sp.csr_matrix
    num_all: int
    num_untyped: int
    notes: tuple[str, ...]

    @property
    def num_cells(self) -> int:
        """Cells that are compared."""
        return len(self.cell_ids)

    @property
    def num_empty(self) -> int:
        """Cells that express none of the shared genes."""
        return int((np.diff(self.values.indptr) == 0).sum())


def shared_genes(generated: CellSource, real: CellSource) -> tuple[str, ...]:
    """Return the names of genes that both have, as they are written, sorted.

    Raises
    ------
    InputError
        When there are fewer than :data:`MIN_GENES`.
    """
    return check_shared((generated.name, gene_names(generated)), (real.name, gene_names(real)))


def check_shared(generated: tuple[str, Sequence[str]], real: tuple[str, Sequence[str]]) -> tuple[str, ...]:
    """Do as :func:`shared_genes` for what sides are called and their genes."""
    (name, ours), (other, theirs) = generated, real
    shared = tuple(sorted((set(ours) & set(theirs)) - {""}))
    if len(shared) < MIN_GENES:
        raise InputError(
            f"{name} ({len(ours):,} genes such as {ours[0]}) and {other} ({len(theirs):,} such as {theirs[0]}) share "
            f"{count(len(shared), 'gene name')} and {MIN_GENES} are needed; name them alike in both."
        )
    return shared


def read_compared(
    source: CellSource, genes: Sequence[str], label: str, most: int, seed: int = 0, log_base: float | None = None,
    alike: Collection[str] | None = None,
) -> ComparedCells:  # fmt: skip
    """Read the cells of one side.

    Parameters
    ----------
    genes
        The shared ones [S]. Columns of one name are added up before the logarithm.
    label
        The column of obs with the types; cells without one are left out.
    most, seed
        Of more cells so many are drawn, keyed by seed and cell name.
    log_base
        Base of the logarithm of a log-normalised source, which is taken back; None looks for the one that gives all
        cells one total, and takes e where none does.
    alike
        Types of which at least a quarter of the drawn cells are, where there are as many; None draws among all alike.

    Raises
    ------
    InputError
        When there is no such column, no cell with a type, or a value that cannot be used.
    """
    types = np.array(names_in(source.obs_column(label)), dtype=object)
    typed = np.flatnonzero(types != "")
    if not len(typed):
        raise InputError(f"no cell of {source.name} has a type in the obs column {label!r}; name another column.")
    is_alike = np.isin(types[typed].astype(str), sorted(alike or ()))
    rows = typed if len(typed) <= most else typed[_drawn_of_both(source.obs_names[typed], is_alike, most, seed)]
    base = 1.0 if source.value_kind == "counts" else _given_base(source, log_base) or log_base_of(source)
    gather = _gather(gene_names(source), genes)
    parts = [_normalised(linear(block.matrix, base) @ gather) for block in source.blocks(rows)]
    by_name = np.argsort(source.obs_names[rows].astype(str), kind="stable")
    values = sp.csr_matrix(sp.vstack(parts, format="csr"))[by_name]
    rows = rows[by_name]
    said = () if base == 1.0 else (f"The logarithm of {source.name} is taken back as one to base {base:.4g}.",)
    return ComparedCells(
        source.name,
        tuple(map(str, source.obs_names[rows])),
        tuple(map(str, types[rows])),
        values,
        source.n_cells,
        source.n_cells - len(typed),
        (source.value_note, *said),
    )


def drawn(names: npt.ArrayLike, most: int, seed: int = 0) -> Ints:
    """Return the places of at most so many names, rising, drawn by a key of seed and name."""
    keys = stream_keys(seed, cell_keys(names), _DRAW)
    order = np.argsort(draws(keys, np.zeros(len(keys), np.uint64)), kind="stable")
    return np.sort(order[:most])


def _drawn_of_both(names: npt.NDArray[np.object_], is_first: npt.NDArray[np.bool_], most: int, seed: int) -> Ints:
    """Return as :func:`drawn`, at least a quarter of those places where `is_first`, as far as there are as many."""
    found, fewest = drawn(names, most, seed), min(most // 4, int(is_first.sum()))
    if is_first[found].sum() >= fewest:
        return found
    first, others = np.flatnonzero(is_first), np.flatnonzero(~is_first)
    return np.sort(
        np.concatenate((first[drawn(names[first], fewest, seed)], others[drawn(names[others], most - fewest, seed)]))
    )


def _gather(columns: Sequence[str], genes: Sequence[str]) -> sp.csr_matrix:
    """Return the matrix [columns, S] that brings columns to their genes and leaves out the others."""
    place_of = {name: place for place, name in enumerate(genes)}
    places = np.array([place_of.get(name, -1) for name in columns], np.int64)
    known = np.flatnonzero(places >= 0)
    return sp.csr_matrix((np.ones(len(known)), (known, places[known])), shape=(len(columns), len(genes)))


def _normalised(values: sp.csr_matrix) -> sp.csr_matrix:
    values = sp.csr_matrix(values)
    totals = totals_of(values)
    scale = np.divide(TARGET, totals, out=np.zeros_like(totals), where=totals > 0)
    values.data = np.log1p(values.data * np.repeat(scale, np.diff(values.indptr)))
    values.sort_indices()
    return values.astype(np.float32)


def _given_base(source: CellSource, log_base: float | None) -> float | None:
    """Return the base as the source gives its values, which are natural logarithms where the file says another base."""
    if source.log_base is None:
        return log_base
    return float(np.e) if log_base is None else float(log_base ** (1 / np.log(source.log_base)))
