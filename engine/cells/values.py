"""Which values a matrix holds: counts, log-normalised, or something that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from cellscribe.engine.cells.parts import Part, Rows, take
from cellscribe.engine.errors import InputError, UsageError

ValueKind = Literal["counts", "lognorm"]
ValueChoice = Literal["auto", "counts", "lognorm"]
MAX_LOGGED = 20.0  # ln(1 + x) of 20 would be 485 million counts
MAX_COUNT = 1e7  # of one gene in one cell, beyond which a count is hard to believe
MAX_BAD_SHARE = 0.1  # of cells that may be bad where single cells do not count against a matrix
_BAD = "values that are NaN, infinite or negative"
COUNT_LAYERS = ("counts", "raw_counts", "count", "raw", "umi", "umis", "umi_counts")
LOG_LAYERS = ("logcounts", "lognorm", "log1p", "log_normalized", "lognormalized", "log1p_norm", "normalized", "data")


@dataclass
class ValueStats:
    """What was seen of a matrix: filled by :meth:`add`, part by part.

    With `is_lenient`, cells that hold NaN, infinities or negative numbers say nothing of others, while they are few.
    """

    n_rows: int = 0
    n_values: int = 0
    minimum: float = 0.0
    maximum: float = 0.0
    is_whole: bool = True
    bad_word: str = ""  # "NaN", "infinite"
    bad_row: int = -1
    negative_row: int = -1
    huge_row: int = -1  # the first with a count above MAX_COUNT
    is_lenient: bool = False
    n_bad_rows: int = 0
    max_bad_share: float = MAX_BAD_SHARE

    @property
    def is_partly_good(self) -> bool:
        """Whether there are cells without bad numbers beside those with, as far as single ones are told apart."""
        return self.is_lenient and 0 < self.n_bad_rows < self.n_rows

    def add(self, part: Part, rows: Rows) -> None:
        """Account for the values of `part`, whose rows are `rows` of the matrix."""
        self.n_rows += part.n_rows
        self.n_values += len(part.data)
        if not len(part.data):
            return
        if not self.bad_word and not np.isfinite(part.data).all():
            first = int(np.argmax(~np.isfinite(part.data)))
            self.bad_word = "NaN" if np.isnan(part.data[first]) else "infinite"
            self.bad_row = int(rows[part.row_of[first]])
        with np.errstate(invalid="ignore"):
            low, high = float(np.nanmin(part.data)), float(np.nanmax(part.data))
            if low < 0 and self.negative_row < 0:
                self.negative_row = int(rows[part.row_of[int(np.argmax(part.data < 0))]])
            if high > MAX_COUNT and self.huge_row < 0:
                self.huge_row = int(rows[part.row_of[int(np.argmax(part.data > MAX_COUNT))]])
            self.minimum = min(self.minimum, low)
            if self.is_lenient:
                part, high = self._good(part, high)
            self.maximum = max(self.maximum, high)
            self.is_whole = self.is_whole and bool((part.data == np.rint(part.data)).all())

    def _good(self, part: Part, high: float) -> tuple[Part, float]:
        """Return the cells of a part that hold no bad number, and the highest of theirs."""
        if self.minimum >= 0 and not self.bad_word:
            return part, high
        is_bad = np.zeros(part.n_rows, dtype=bool)
        is_bad[part.row_of[~(np.isfinite(part.data) & (part.data >= 0))]] = True
        self.n_bad_rows += int(is_bad.sum())
        kept = take(part, np.flatnonzero(~is_bad))
        return kept, float(kept.data.max(initial=0.0))

    @property
    def kind(self) -> Literal["bad", "negative", "counts", "lognorm", "fractions"]:
        """What the values look like; ``fractions`` are positive, not whole, and too large to be logarithms."""
        is_forgiven = self.is_lenient and self.n_bad_rows <= self.max_bad_share * self.n_rows
        if self.bad_word and not is_forgiven:
            return "bad"
        if self.minimum < 0 and not is_forgiven:
            return "negative"
        if self.is_whole:
            return "counts"
        return "lognorm" if self.maximum < MAX_LOGGED else "fractions"


class MatrixStore(Protocol):
    """What the choice of values needs of a store of cells."""

    name: str
    layers: tuple[str, ...]
    has_x: bool
    has_raw: bool
    obs_names: list[str]

    def stats(self, origin: str, *, is_lenient: bool = False) -> ValueStats:
        """Return what values a matrix holds."""
        ...


@dataclass(frozen=True)
class Values:
    """The chosen matrix: `origin` ("X", "layers['counts']", "raw.X"), kind, a sentence for the user, largest value."""

    origin: str
    kind: ValueKind
    note: str
    warnings: tuple[str, ...] = field(default=())
    maximum: float = 0.0


def layer_origin(name: str) -> str:
    """Return the origin of a layer."""
    return f"layers[{name!r}]"


def obsm_origin(name: str) -> str:
    """Return the origin of an array that lies beside obs."""
    return f"obsm[{name!r}]"


def choose_values(store: MatrixStore, layer: str | None, values: ValueChoice, *, is_lenient: bool = False) -> Values:
    """Choose the matrix to read: the layer asked for, else counts where there are any, else log-normalised values.

    With `is_lenient` a few cells with bad numbers do not count against a matrix, and any number of them short of all
    where `values` says what it holds and no other matrix will do.

    Raises
    ------
    InputError
        When no usable matrix is found, or the values contradict `values`.
    UsageError
        For an unknown `layer` or `values`.
    """
    if values not in ("auto", "counts", "lognorm"):
        raise UsageError(f"The kind of values is {values!r}; choose auto, counts or lognorm.")
    origins = [_asked_origin(store, layer)] if layer is not None else _candidates(store, values)
    seen: dict[str, ValueStats] = {}
    for wanted in (values,) if values != "auto" else ("counts", "lognorm"):
        for origin in origins:
            if origin not in seen:
                seen[origin] = store.stats(origin, is_lenient=is_lenient)
            stats = seen[origin]
            if stats.kind == wanted and not (stats.n_values == 0 and len(origins) > 1):
                return _chosen(store, origin, wanted, seen, layer)
    return _forced(store, origins, seen, values)


def _asked_origin(store: MatrixStore, layer: str) -> str:
    if layer == "X" and store.has_x:
        return "X"
    if layer in ("raw", "raw.X") and store.has_raw and layer not in store.layers:
        return "raw.X"
    if layer in store.layers:
        return layer_origin(layer)
    known = [*(["X"] if store.has_x else []), *store.layers, *(["raw.X"] if store.has_raw else [])]
    raise UsageError(f"{store.name} has no layer {layer!r}; choose one of: {', '.join(known) or 'none is there'}.")


def _candidates(store: MatrixStore, values: ValueChoice) -> list[str]:
    wanted = LOG_LAYERS if values == "lognorm" else (*COUNT_LAYERS, *LOG_LAYERS)
    by_name = {name.casefold().replace("-", "_").replace(" ", "_"): name for name in reversed(store.layers)}
    layers = [layer_origin(by_name[name]) for name in wanted if name in by_name]
    raw = ["raw.X"] if store.has_raw else []
    origins = [*(["X"] if store.has_x else []), *layers, *raw]
    if not origins:
        raise InputError(f"{store.name} has no matrix in X, raw or a counts layer; store one there.")
    return origins


def _chosen(store: MatrixStore, origin: str, kind: str, seen: dict[str, ValueStats], layer: str | None) -> Values:
    stats = seen[origin]
    words = "counts" if kind == "counts" else "log-normalised values"
    how = "as asked" if layer is not None else "found by looking at the values"
    passed = [f"{name} holds {_describe(other)}" for name, other in seen.items() if name != origin]
    aside = f" ({'; '.join(passed)})" if passed and layer is None else ""
    note = f"Values: {words} from {origin}, {how}, largest {stats.maximum:g}{aside}."
    return Values(
        origin, "counts" if kind == "counts" else "lognorm", note + _doubt(store, stats), maximum=stats.maximum
    )


def _doubt(store: MatrixStore, stats: ValueStats) -> str:
    """Say that a count is too large to be one; empty where none is."""
    if stats.huge_row < 0:
        return ""
    return f" A count above {MAX_COUNT:,.0f} is hard to believe; look at cell {store.obs_names[stats.huge_row]!r}."


def _describe(stats: ValueStats) -> str:
    words = {
        "bad": f"{stats.bad_word} values",
        "negative": "scaled values, some below zero",
        "counts": "counts",
        "lognorm": "log-normalised values",
        "fractions": f"fractions up to {stats.maximum:g}",
    }
    return words[stats.kind] if stats.n_values else "nothing but zeros"


def _forced(store: MatrixStore, origins: list[str], seen: dict[str, ValueStats], values: ValueChoice) -> Values:
    """Take the first matrix as what the user says it is, where that can be, or say why it cannot."""
    origin = next((name for name in origins if seen[name].kind not in ("bad", "negative")), origins[0])
    stats = seen[origin]
    where = f"{origin} of {store.name}"
    if stats.kind in ("bad", "negative") and stats.is_partly_good:
        is_scaled = stats.kind == "negative" and stats.n_bad_rows > stats.n_rows / 2
        if values == "auto" and not is_scaled:
            raise InputError(_too_many(stats, where))
        stats = stats if values == "auto" else replace(stats, max_bad_share=1.0)
        if stats.kind == values:
            note = f"Values: {origin} is taken as {values}, as asked, although {_share(stats)} hold {_BAD}."
            return Values(origin, values, note, (note,), stats.maximum)
    if stats.kind == "bad":
        raise InputError(
            f"{where} holds a value that is {stats.bad_word} in cell {store.obs_names[stats.bad_row]!r}; "
            "remove or mend that cell."
        )
    if stats.kind == "negative":
        cell = store.obs_names[stats.negative_row]
        raise InputError(
            f"{where} holds values below zero (cell {cell!r}), so it is scaled or damaged{_way_out(store, origins)}."
        )
    if stats.n_values == 0:
        return Values(origin, "counts", f"Values: {origin} holds nothing but zeros.")
    if values == "counts":
        note = f"Values: {origin} is taken as counts, as asked, although they are not whole numbers."
        return Values(origin, "counts", note + _doubt(store, stats), (note,))
    if values == "lognorm" and stats.maximum < MAX_LOGGED:
        note = f"Values: {origin} is taken as log-normalised, as asked, although it holds whole numbers only."
        return Values(origin, "lognorm", note, (note,), stats.maximum)
    if values == "lognorm":
        raise InputError(f"{where} reaches {stats.maximum:g}, so it is not log-normalised; ask for counts instead.")
    raise InputError(
        f"{where} holds fractions up to {stats.maximum:g}, neither counts nor log-normalised"
        f"{_way_out(store, origins)}, or pass values='counts' (--input counts) if they are counts."
    )


def _too_many(stats: ValueStats, where: str) -> str:
    return (
        f"{_share(stats)} in {where} hold {_BAD}, more than the {100 * MAX_BAD_SHARE:.0f} % that are passed over; say "
        "what the other cells hold with --input counts or --input lognorm, or remove or mend those cells."
    )


def _share(stats: ValueStats) -> str:
    share = 100 * stats.n_bad_rows / stats.n_rows
    return f"{stats.n_bad_rows:,} of {stats.n_rows:,} cells ({share:.0f} %)"


def _way_out(store: MatrixStore, origins: list[str]) -> str:
    others = [layer_origin(name) for name in store.layers] + (["raw.X"] if store.has_raw else [])
    left = [name for name in others if name not in origins]
    if left:
        return f"; name a layer that holds counts (there: {', '.join(left)})"
    return "; store the counts in X, in layers['counts'] or in raw"
