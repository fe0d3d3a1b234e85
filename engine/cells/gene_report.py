"""What became of the genes of a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from cellscribe.engine.errors import InputError

REFUSE_BELOW, WARN_BELOW = 0.20, 0.60


@dataclass(frozen=True)
class GeneReport:
    """How the genes of a file were matched to a vocabulary.

    Parameters
    ----------
    n_file_genes, n_matched
        Columns of the file, and those of them that stand for a gene of the vocabulary.
    by_kind
        Matched columns by how: symbol, ensembl, ensembl_version, symbol_ensembl, synonym, mouse_case; and
        ``duplicate`` (columns added to another one of the same gene), ``ambiguous`` (columns left out because several
        claim one gene by a weak likeness), ``excel_date`` (names that a spreadsheet turned into dates).
    n_wanted, n_wanted_found
        Genes the bundle asks for (its own list, or its whole vocabulary), and those of them in the file.
    is_listed
        Whether the bundle has a list of its own; then `fraction` is the share of the list found in the file, else the
        share of the file's genes that the vocabulary knows.
    unmatched
        Some names that no gene of the vocabulary goes by.
    """

    n_file_genes: int
    n_matched: int
    by_kind: dict[str, int]
    n_wanted: int
    n_wanted_found: int
    is_listed: bool
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def fraction(self) -> float:
        """Share of genes matched, 0..1."""
        found, total = (self.n_wanted_found, self.n_wanted) if self.is_listed else (self.n_matched, self.n_file_genes)
        return found / total if total else 0.0

    @property
    def warning(self) -> str:
        """A sentence when fewer than 60 % of the genes match, else empty."""
        if self.fraction >= WARN_BELOW:
            return ""
        return f"Only {self.fraction:.0%} of the genes match, so results may be poor; check the gene names and species."

    def sentence(self) -> str:
        """Say it to the user."""
        kinds = ", ".join(f"{count:,} by {name.replace('_', ' ')}" for name, count in self.by_kind.items() if count)
        head = f"Genes: {self.n_matched:,} of the file's {self.n_file_genes:,} match ({kinds or 'none'})"
        tail = f"; {self.n_wanted_found:,} of the bundle's {self.n_wanted:,} are there" if self.is_listed else ""
        return " ".join([f"{head}{tail}.", *self.notes, *([self.warning] if self.warning else [])])

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers and text, fit for ``uns``."""
        stored = asdict(self) | {"fraction": self.fraction, "sentence": self.sentence()}
        return stored | {"unmatched": list(self.unmatched), "notes": list(self.notes)}

    def check(self, name: str) -> None:
        """Raise InputError when fewer than 20 % of the genes match."""
        if self.fraction >= REFUSE_BELOW:
            return
        of_what = "the bundle's genes are in" if self.is_listed else "the genes are known of"
        names = f" (unknown: {', '.join(self.unmatched[:4])})" if self.unmatched else ""
        raise InputError(
            f"Only {self.fraction:.0%} of {of_what} {name}{names}; give human gene symbols or Ensembl ids as var_names "
            "or in a var column named gene_ids."
        )
