"""Which column of a file is which gene of the vocabulary: decided gene by gene."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.gene_names import id_by_symbol, other_symbols, symbol_by_id
from cellscribe.engine.cells.gene_report import GeneReport
from cellscribe.engine.cells.tables import ENSEMBL
from cellscribe.engine.cells.vocabulary import GeneVocabulary

_JOINED = re.compile(r"(.+)_(ENS[A-Z]{0,6}G\d{9,})(\.\d+)?")
_EXCEL = re.compile(r"\d{1,2}-(Mar|Sep|Dec|Oct|Apr)|(Mar|Sep|Dec|Oct|Apr)-\d{1,2}|\d{4}-(03|09|12)-\d\d.*")
_KINDS = ("symbol", "ensembl", "ensembl_version", "symbol_ensembl", "synonym", "mouse_case")
WEAK = ("synonym", "mouse_case")
_N_EXAMPLES = 20


@dataclass(frozen=True)
class GeneMatch:
    """The outcome: `token_of_column` int64 [n_genes] (-1: unused), and the report."""

    token_of_column: npt.NDArray[np.int64]
    report: GeneReport

    @property
    def has_duplicates(self) -> bool:
        """Whether several columns stand for one gene."""
        return self.report.by_kind.get("duplicate", 0) > 0


def match_genes(
    names: Iterable[str],
    vocabulary: GeneVocabulary,
    *,
    ensembl: Sequence[str | None] | None = None,
    symbols: Sequence[str | None] | None = None,
    wanted: Sequence[str] | None = None,
    adds_up: bool = True,
    lookup: GeneLookup | None = None,
) -> GeneMatch:
    """Match the columns of a file to the tokens of a vocabulary.

    A column is known by its name, its Ensembl id (with or without version, from its own column or joined to the symbol
    as in ``7SK_ENSG00000260682``) or its symbol column. Only a gene that no column claims so is looked for among old
    and new symbols, and then without regard to case (mouse); two columns with equal weak claims both stay out. Strong
    claims to one gene are added up. Suffixes of ``var_names_make_unique`` are not removed: ``A-1`` may be a gene.

    Parameters
    ----------
    names
        Gene names [n_genes].
    vocabulary
        The bundle's genes.
    ensembl, symbols
        Ensembl ids and symbols [n_genes] where the file has them.
    wanted
        The genes the bundle asks for; None for the whole vocabulary.
    adds_up
        Whether the columns of one gene will be added up; else each stays what it is. Only the report tells.
    lookup
        The ways into this very vocabulary, for who matches names again and again.
    """
    keys = [str(name) for name in names]
    lookup = lookup or GeneLookup(vocabulary)
    found: list[tuple[int, str]] = [
        lookup.strong(name, ensembl[i] if ensembl else None, symbols[i] if symbols else None)
        for i, name in enumerate(keys)
    ]
    claimed = {token for token, _ in found if token >= 0}
    n_ambiguous = 0
    for kind in WEAK:
        left = [i for i, (token, _) in enumerate(found) if token < 0]
        claims = {i: lookup.weak(keys[i], symbols[i] if symbols else None, kind) for i in left}
        rivals = Counter(token for token in claims.values() if token >= 0 and token not in claimed)
        for i, token in claims.items():
            if rivals.get(token) == 1:
                found[i] = (token, kind)
            elif token in rivals:
                n_ambiguous += 1
        claimed.update(token for token, count in rivals.items() if count == 1)
    return _outcome(keys, found, n_ambiguous, vocabulary, wanted, adds_up)


class GeneLookup:
    """Ways from a name to a token."""

    def __init__(self, vocabulary: GeneVocabulary) -> None:
        self.vocabulary = vocabulary
        special = {number for token, number in vocabulary.index.items() if token.startswith("<")}
        self.tokens = {token: number for token, number in vocabulary.index.items() if number not in special}
        by_id = {token.split(".")[0]: number for token, number in self.tokens.items() if ENSEMBL.fullmatch(token)}
        self.by_id = vocabulary.by_ensembl | by_id
        self.has_ids = bool(self.by_id)
        self.by_upper: dict[str, int] = {}
        for token, number in self.tokens.items():
            key = token.upper()
            self.by_upper[key] = number if key not in self.by_upper or token == key else self.by_upper[key]

    def strong(self, name: str, ensembl: str | None, symbol: str | None) -> tuple[int, str]:
        """Token and kind of a column by its own names, or (-1, "")."""
        if name in self.tokens:
            return self.tokens[name], "ensembl" if ENSEMBL.fullmatch(name) else "symbol"
        if ensembl in self.tokens:  # ENSGR0000198223 and its like are ids of no usual form
            return self.tokens[ensembl], "ensembl"
        for text in (ensembl, name):
            if text and ENSEMBL.fullmatch(text):
                token = self._of_id(text.split(".")[0])
                if token >= 0:
                    return token, "ensembl_version" if "." in text else "ensembl"
        joined = _JOINED.fullmatch(name)
        if joined and (token := self._of_id(joined[2])) >= 0:
            return token, "symbol_ensembl"
        for text in (symbol, name):
            if text and (token := self._of_symbol(text)) >= 0:
                return token, "symbol"
        return -1, ""

    def weak(self, name: str, symbol: str | None, kind: str) -> int:
        """Token of a column by a likeness, or -1."""
        for text in (name, symbol):
            if text:
                joined = _JOINED.fullmatch(text)
                token = self._by_synonym(joined[1] if joined else text) if kind == "synonym" else self._by_case(text)
                if token >= 0:
                    return token
        return -1

    def _of_symbol(self, symbol: str) -> int:
        if symbol in self.tokens:
            return self.tokens[symbol]
        return self.by_id.get(id_by_symbol().get(symbol, ""), -1) if self.has_ids else -1

    def _of_id(self, ensembl: str) -> int:
        if ensembl in self.by_id:
            return self.by_id[ensembl]
        symbol = symbol_by_id().get(ensembl)
        if symbol is None:
            return -1
        token = self.tokens.get(symbol, -1)
        return token if token >= 0 else self._by_synonym(symbol)

    def _by_synonym(self, symbol: str) -> int:
        tokens = (self._of_symbol(other) for other in (symbol, *other_symbols(symbol)))
        return next((token for token in tokens if token >= 0), -1)

    def _by_case(self, name: str) -> int:
        upper = name.upper()
        if upper == name and upper in self.tokens:
            return -1
        token = self.by_upper.get(upper, -1)
        return token if token >= 0 or ENSEMBL.fullmatch(upper) else self._by_synonym(upper)


def _outcome(
    names: list[str],
    found: list[tuple[int, str]],
    n_ambiguous: int,
    vocabulary: GeneVocabulary,
    wanted: Sequence[str] | None,
    adds_up: bool,
) -> GeneMatch:
    tokens = np.array([token for token, _ in found], dtype=np.int64).reshape(len(names))
    kinds = Counter(kind for token, kind in found if token >= 0)
    present = {int(token) for token in tokens if token >= 0}
    n_matched = int((tokens >= 0).sum())
    unmatched = [name for name, token in zip(names, tokens, strict=True) if token < 0]
    by_kind = {kind: kinds[kind] for kind in _KINDS}
    by_kind["duplicate"] = n_matched - len(present)
    by_kind["ambiguous"] = n_ambiguous
    by_kind["excel_date"] = sum(_EXCEL.fullmatch(name) is not None for name in unmatched)
    genes = wanted if wanted is not None else [t for t in vocabulary.tokens if not t.startswith("<")]
    report = GeneReport(
        n_file_genes=len(names),
        n_matched=n_matched,
        by_kind={kind: count for kind, count in by_kind.items() if count},
        n_wanted=len(genes),
        n_wanted_found=sum(vocabulary.index.get(gene, -1) in present for gene in genes),
        is_listed=wanted is not None,
        unmatched=tuple(unmatched[:_N_EXAMPLES]),
        notes=_notes(by_kind, unmatched, adds_up),
    )
    return GeneMatch(tokens, report)


def _notes(by_kind: dict[str, int], unmatched: list[str], adds_up: bool) -> tuple[str, ...]:
    notes = []
    if by_kind["duplicate"]:
        fate = "were added to it" if adds_up else "stand beside it, each by itself"
        notes.append(f"{by_kind['duplicate']:,} columns repeat a gene and {fate}.")
    if by_kind["ambiguous"]:
        notes.append(f"{by_kind['ambiguous']:,} columns are left out because they resemble one gene equally.")
    if by_kind["excel_date"]:
        notes.append(f"{by_kind['excel_date']:,} names are dates made by a spreadsheet; restore them from Ensembl ids.")
    n_foreign = sum(name.startswith(("ENSMUSG", "ENSRNOG", "ENSDARG")) for name in unmatched)
    if n_foreign:
        notes.append(f"{n_foreign:,} names are Ensembl ids of another species; give symbols in var instead.")
    return tuple(notes)
