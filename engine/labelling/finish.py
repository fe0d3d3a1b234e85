"""What is done with labels once all cells have theirs: clusters vote, and a report is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import UsageError
from cellscribe.engine.labelling.expression import gene_names
from cellscribe.engine.labelling.majority import AUTO, Voting, check_vectors, with_votes
from cellscribe.engine.labelling.markers import places_of
from cellscribe.engine.labelling.overcluster import check_clustering
from cellscribe.engine.output.files import check_output
from cellscribe.engine.output.label_report import LabelReport, write_label_report
from cellscribe.engine.output.run import Run


@dataclass(frozen=True)
class Finish:
    """Votes of clusters, and a report, where they are wanted."""

    voting: Voting | None = None
    report: Path | None = None
    shown: LabelReport = field(default_factory=LabelReport)

    def check(self, source: CellSource, *, has_vectors: bool = False) -> None:
        """Raise InputError, UsageError or OutputError, before any cell is labelled, for what could not be done.

        `has_vectors` says whether the labels will come with vectors of the cells.
        """
        if self.report is not None:
            check_output(self.report, source.path, (".html",))
        if self.voting is not None and self.voting.by != AUTO:
            source.obs_column(self.voting.by)
        elif self.voting is not None:
            check_vectors(has_vectors)
            check_clustering()
        if self.shown.truth is not None:
            source.obs_column(self.shown.truth)
        if self.shown.genes is not None:
            places_of(self.shown.genes, gene_names(source), self.shown.genes_from)

    def voted(self, run: Run, source: CellSource) -> Run:
        """Return the run with its clusters' votes."""
        return run if self.voting is None else with_votes(run, source, self.voting)

    def write(self, run: Run, source: CellSource) -> None:
        """Write the report, which comes after the labels are where they are to be."""
        if self.report is not None:
            write_label_report(run, source, self.report, self.shown)


class FinishOptions(TypedDict, total=False):
    """Wishes for what is made of labels; all may be left out.

    Parameters
    ----------
    majority_vote, min_share
        Also give clusters, a column of obs or ``auto`` for many small ones of the vectors, the label that most of
        their cells have (:class:`cellscribe.engine.labelling.majority.Voting`).
    report
        A page to write, ending in .html: labels, confusion table, dot plot.
    truth
        The column of obs with known labels, for its confusion table.
    markers, markers_from
        Genes by label for its dot plot, and where they are from; chosen from the cells where none are given.
    """

    majority_vote: str | None
    min_share: float
    report: str | Path | None
    truth: str | None
    markers: Mapping[str, Sequence[str]] | None
    markers_from: str


def finish_of(**wishes: Unpack[FinishOptions]) -> Finish:
    """Put wishes together.

    Raises
    ------
    UsageError
        For a wish that needs another one.
    TypeError
        For a wish that there is not, as a misspelled one.
    """
    unknown = next((name for name in wishes if name not in FinishOptions.__annotations__), None)
    if unknown is not None:
        raise TypeError(f"got an unexpected keyword argument {unknown!r}")
    report, truth, markers = wishes.get("report"), wishes.get("truth"), wishes.get("markers")
    by, min_share = wishes.get("majority_vote"), wishes.get("min_share", 0.0)
    if report is None and (truth is not None or markers is not None):
        raise UsageError(
            "truth and markers (--truth, --markers) are shown in the report; name one (--report OUT.html)."
        )
    if by is None and min_share:
        raise UsageError("min_share (--min-share) is of clusters; name them with majority_vote (--majority-vote).")
    return Finish(
        None if by is None else Voting(by, min_share),
        None if report is None else Path(report),
        LabelReport(truth, markers, wishes.get("markers_from", "markers")),
    )
