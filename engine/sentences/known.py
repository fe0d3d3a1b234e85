"""Whether the names of genes are ones that a model of sentences can know."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cellscribe.engine.cells import CellSource
from cellscribe.engine.cells.gene_names import id_by_symbol, other_symbols
from cellscribe.engine.errors import InputError
from cellscribe.engine.sentences.genes import SentenceGenes

ORGANISMS = ("human", "mouse")  # whose symbols, in upper case, the packaged table has
WARN_BELOW = 0.5  # clones, pseudogenes and symbols of other releases are rightly unknown, but never most names
REFUSE_FROM = 100  # names; fewer of them may be a panel with names of its own


@dataclass(frozen=True)
class KnownNames:
    """How many of `total` words are gene symbols, and one that is not."""

    known: int
    total: int
    unknown: str = ""

    @property
    def warning(self) -> str:
        """A sentence when fewer than half of the names are known, else empty."""
        return self.warning_of("answers")

    def warning_of(self, what: str) -> str:
        """Return the warning about what is made of the names."""
        if self.known >= WARN_BELOW * self.total:
            return ""
        return (
            f"Only {self.known:,} of {self.total:,} names are known gene symbols (unknown: {self.unknown}), so {what} "
            "may mean nothing; check the gene names."
        )

    def sentence(self, what: str = "answers") -> str:
        """Say it to the user; `what` is made of the names."""
        return self.warning_of(what) or f"{self.known:,} of {self.total:,} names are known gene symbols."

    def check(self, where: str) -> None:
        """Raise InputError when none of many names is known."""
        if not self.known and self.total >= REFUSE_FROM:
            raise InputError(
                f"none of the {self.total:,} gene names of {where} is a known symbol (unknown: {self.unknown}); give "
                "gene symbols as var_names or in a var column named gene_symbols, or name the organism (--organism)."
            )


@lru_cache(maxsize=4)
def known_names(genes: SentenceGenes) -> KnownNames:
    """Count the words that are symbols of human genes, in upper case; most symbols of mouse are, too."""
    symbols = _symbols()
    unknown = [word for word in genes.words if symbols.isdisjoint((word, *other_symbols(word)))]
    return KnownNames(len(genes.words) - len(unknown), len(genes.words), unknown[0] if unknown else "")


def checked_names(source: CellSource, organism: str) -> KnownNames | None:
    """Return how many names are known; None for an organism whose symbols are not packaged.

    Raises
    ------
    InputError
        When none of many names is known.
    """
    return checked_words(SentenceGenes.of_cells(source), organism, source.name)


def checked_words(genes: SentenceGenes, organism: str, where: str) -> KnownNames | None:
    """Do the same with words, of which `where` says where they come from."""
    if organism.strip().casefold() not in ORGANISMS:
        return None
    found = known_names(genes)
    found.check(where)
    return found


def gene_report(source: CellSource, organism: str) -> dict[str, object]:
    """Return :func:`checked_names` for ``uns``; empty where they are not known."""
    found = checked_names(source, organism)
    if found is None:
        return {}
    return {"n_known": found.known, "n_names": found.total, "sentence": found.sentence()}


@lru_cache(maxsize=1)
def _symbols() -> frozenset[str]:
    return frozenset(map(str.upper, id_by_symbol()))
