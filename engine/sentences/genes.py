"""The words of cell sentences: upper-cased names of genes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import native_binning
from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.cells.tables import ENSEMBL
from cellscribe.engine.errors import InputError
from cellscribe.engine.keyed import UInt64
from cellscribe.engine.output.run import count
from cellscribe.engine.sentences import native

_SHOWN = 5


@dataclass(frozen=True)
class SentenceGenes:
    """Words of the genes of a matrix, in the order of its columns.

    Parameters
    ----------
    words
        Upper-cased names [G], no two alike, none empty and none with a space in it.
    given
        The names as they were given [G], for columns that are made of words; empty where they are the words.
    """

    words: tuple[str, ...]
    given: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of(cls, names: Iterable[str], where: str = "the gene list") -> SentenceGenes:
        """Make words of names.

        Raises
        ------
        InputError
            When two names are alike in upper case, or one is empty or holds a space or a line break.
        """
        given = tuple(map(str, names))
        words = tuple(map(str.upper, given))
        if " ".join(words).split() != [*words]:
            broken = next(name for name, word in zip(given, words, strict=True) if word.split() != [word])
            raise InputError(
                f"{where} has a gene named {broken!r}, which cannot be one word; rename it without spaces."
            )
        if len(set(words)) != len(words):
            raise InputError(_doubles(given, words, where))
        return cls(words, given)

    @classmethod
    def of_cells(cls, source: CellSource) -> SentenceGenes:
        """Take the words of a source: its names, or its symbols where the names are Ensembl ids.

        A gene with an id and no symbol keeps its id. They are made once a source. Errors as :meth:`of`.
        """
        if source not in _MADE:
            _MADE[source] = cls._of_cells(source)
        return _MADE[source]

    @classmethod
    def _of_cells(cls, source: CellSource) -> SentenceGenes:
        names: Sequence[str] = tuple(map(str, source.var_names))
        if source.var_symbols is not None and 2 * sum(ENSEMBL.fullmatch(name) is not None for name in names) > len(
            names
        ):
            names = tuple(symbol or name for symbol, name in zip(source.var_symbols, names, strict=True))
        return cls.of(names, source.name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of columns [G], in the case that they came in."""
        return self.given or self.words

    def at(self, columns: Iterable[int]) -> SentenceGenes:
        """Return some of the genes."""
        kept, names = list(columns), self.names
        return SentenceGenes(tuple(self.words[i] for i in kept), tuple(names[i] for i in kept))

    @cached_property
    def index(self) -> dict[str, int]:
        """Column of every word."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def keys(self) -> UInt64:
        """Identity of every gene, uint64 [G]: a function of its word, so that the order of columns plays no part."""
        return native_binning.name_keys(self.words)

    @cached_property
    def table(self) -> npt.NDArray[np.int32] | None:
        """What the compiled code finds a word by; None without that code."""
        compiled = native.find_native()
        return None if compiled is None else compiled.words(*self.text)

    @cached_property
    def text(self) -> tuple[bytes, npt.NDArray[np.int64]]:
        """All words as UTF-8, each with a space after it, and where each starts, int64 [G + 1]; spaces follow."""
        text = " ".join((*self.words, "")).encode()
        starts = np.flatnonzero(np.frombuffer(b" " + text, np.uint8) == ord(" "))
        return text + b" " * native.NAME_SLACK, starts.astype(np.int64)


_MADE: WeakKeyDictionary[CellSource, SentenceGenes] = WeakKeyDictionary()


def _doubles(names: Sequence[str], words: Sequence[str], where: str) -> str:
    named: dict[str, list[str]] = {}
    for name, word in zip(names, words, strict=True):
        named.setdefault(word, []).append(name)
    twice = [" and ".join(alike) for alike in named.values() if len(alike) > 1]
    shown = ", ".join(twice[:_SHOWN]) + (", ..." if len(twice) > _SHOWN else "")
    return (
        f"{where} has {count(len(twice), 'gene name')} twice in upper case ({shown}), which sentences cannot tell "
        "apart; rename or drop all but one column of each (adata.var_names_make_unique() sees no double where only "
        "case differs)."
    )
