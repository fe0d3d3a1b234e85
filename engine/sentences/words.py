"""What turns sentences that a model writes into cells: which words are genes, and the line from rank to expression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellscribe.engine.cells import CellSource
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import UsageError
from cellscribe.engine.packaged import cells_like_those_of
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.sentences.read import read_genes
from cellscribe.engine.sentences.transform import Transform, TransformOptions


def stand_in(folder: Path, *given: object) -> Path | None:
    """Return cells to take genes and line from where nothing is `given` (all None) and a bundle is packaged with some.

    See :func:`cellscribe.engine.packaged.cells_like_those_of`.
    """
    return cells_like_those_of(folder) if all(one is None for one in given) else None


def check_choice(has_like: bool, has_genes: bool, has_fit: bool) -> None:
    """Raise UsageError unless there are either cells to take both from, or genes and a line."""
    if (has_genes, has_fit) != (not has_like, not has_like):
        raise UsageError(
            "generate needs genes and a line to turn sentences into expression; give either --like CELLS, or "
            "--genes and --fit as c2s transform wrote them (like, genes and fit in Python)."
        )


def check_reading(has_like: bool, layer: str | None, values: ValueChoice) -> None:
    """Raise UsageError where it is said how cells are read, and there are none."""
    if not has_like and (layer is not None or values != "auto"):
        raise UsageError(
            "--layer and --input (layer and values in Python) say how the cells of --like are read; give it, or leave "
            "them out."
        )


def words_and_line(
    like: CellSource | None = None,
    genes: str | Path | Sequence[str] | None = None,
    fit: str | Path | Inverse | None = None,
) -> tuple[SentenceGenes, Inverse]:
    """Return what counts as a gene, and what turns ranks into expression.

    Parameters
    ----------
    like
        Cells to take both from; all of them are read.
    genes, fit
        In their place: genes.tsv and fit.json of ``c2s transform``, or names of genes and a line.

    Raises
    ------
    UsageError
        When neither is given, or parts of both.
    InputError
        For what cannot be read.
    """
    check_choice(like is not None, genes is not None, fit is not None)
    if like is not None:
        transform = Transform(like, TransformOptions(min_genes=1))
        for _ in transform.blocks():
            pass
        found = transform.fit()
        return transform.genes, Inverse(found.slope, found.intercept)
    words = read_genes(Path(genes)) if isinstance(genes, (str, Path)) else SentenceGenes.of(genes or ())
    assert fit is not None
    return words, fit if isinstance(fit, Inverse) else Inverse.read(Path(fit))
