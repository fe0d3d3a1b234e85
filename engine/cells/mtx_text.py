"""Sparse matrices as text (Matrix Market), parsed a few megabytes at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from cellscribe.engine.cells.scratch import Entries
from cellscribe.engine.cells.text_file import TextFile
from cellscribe.engine.errors import InputError

_SPACES, _ENDS = re.compile(rb"[ \t]+"), re.compile(rb" ?(\r?\n) ?")
_FEWEST_BYTES = len(b"1 1 1\n")
_MAX_COMMENTS = 10_000
_THREADS = 4  # their stacks count as memory of the reading process
_NAMES = ("gene", "cell", "count")


@dataclass(frozen=True)
class MtxHeader:
    """Rows, columns and entries that a file declares, and whether its values are whole numbers."""

    n_rows: int
    n_columns: int
    n_entries: int
    is_whole: bool


def read_header(text: TextFile) -> MtxHeader:
    """Read what stands before the entries.

    Raises
    ------
    InputError
        For any matrix but a general one of numbers by coordinates, or more entries than the file can hold.
    """
    first = text.line().decode("latin-1").casefold().split()
    if first[:2] != ["%%matrixmarket", "matrix"] or len(first) != 5:
        raise InputError(f"{text.where} does not begin with %%MatrixMarket matrix, so it is no matrix; fetch it again.")
    layout, field, symmetry = first[2:]
    if layout != "coordinate" or symmetry != "general" or field not in ("integer", "real"):
        raise InputError(
            f"{text.where} is written as {layout} {field} {symmetry}; counts are read as coordinate integer general or "
            "coordinate real general: write it so (scipy.io.mmwrite)."
        )
    header = MtxHeader(*_sizes(text), is_whole=field == "integer")
    cells, most = header.n_rows * header.n_columns, text.most // _FEWEST_BYTES
    if header.n_entries > min(cells, most):
        raise InputError(
            f"{text.where} declares {header.n_entries:,} entries, more than its {header.n_rows:,} x "
            f"{header.n_columns:,} values or its {text.stored:,} bytes can hold; fetch it again."
        )
    return header


def entries(text: TextFile, header: MtxHeader) -> Iterator[Entries]:
    """Yield rows and columns, counted from 0, and values, as the file has them, some at a time.

    Raises
    ------
    InputError
        For entries that are no numbers, lie outside the matrix, or are more or fewer than declared.
    """
    pa.set_cpu_count(_THREADS)
    count = 0
    for piece in text.pieces():
        rows, columns, values = _parsed(piece, header.is_whole, text.where)
        count += len(rows)
        if count > header.n_entries:
            raise InputError(f"{text.where} declares {header.n_entries:,} entries and holds more; fetch it again.")
        for numbers, most in ((rows, header.n_rows), (columns, header.n_columns)):
            _check_range(numbers, most, header, text.where)
        if len(rows):
            yield rows - 1, columns - 1, values
    if count < header.n_entries:
        raise InputError(
            f"{text.where} declares {header.n_entries:,} entries and holds {count:,}, so it is truncated; fetch it "
            "again."
        )


def _sizes(text: TextFile) -> tuple[int, int, int]:
    for _ in range(_MAX_COMMENTS):
        line = text.line()
        if line and (line.startswith(b"%") or not line.strip()):
            continue
        words = line.split()
        if len(words) == 3 and all(word.isdigit() and len(word) <= 18 for word in words):
            return int(words[0]), int(words[1]), int(words[2])
        break
    raise InputError(f"{text.where} does not say how many rows, columns and entries it has; fetch it again.")


def _parsed(piece: bytes, is_whole: bool, where: str) -> tuple[npt.NDArray[Any], ...]:
    """Parse lines of three numbers, set apart by single spaces or, on a second try, by any."""
    try:
        return _columns(piece, is_whole)
    except pa.ArrowInvalid:
        tidy = _ENDS.sub(rb"\1", _SPACES.sub(b" ", piece)).strip(b" ")
    if not tidy.strip():
        return tuple(np.empty(0, dtype=np.int32) for _ in _NAMES)
    try:
        return _columns(tidy, is_whole)
    except pa.ArrowInvalid as error:
        kind = "three whole numbers" if is_whole else "two whole numbers and a number"
        raise InputError(
            f"{where} has an entry that is not {kind} ({' '.join(str(error).split())[:120]}); fetch it again."
        ) from error


def _columns(piece: bytes, is_whole: bool) -> tuple[npt.NDArray[Any], ...]:
    types = (pa.int32(), pa.int32(), pa.int64() if is_whole else pa.float64())
    table = csv.read_csv(
        pa.BufferReader(piece),
        read_options=csv.ReadOptions(column_names=_NAMES),
        parse_options=csv.ParseOptions(delimiter=" ", quote_char=False, double_quote=False),
        convert_options=csv.ConvertOptions(
            column_types=dict(zip(_NAMES, types, strict=True)), check_utf8=False, null_values=[]
        ),
    )
    return tuple(column.to_numpy() for column in table.columns)


def _check_range(numbers: npt.NDArray[Any], most: int, header: MtxHeader, where: str) -> None:
    if len(numbers) and (numbers.min() < 1 or numbers.max() > most):
        odd = int(numbers[(numbers < 1) | (numbers > most)][0])
        raise InputError(
            f"{where} has an entry at {odd}, outside its {header.n_rows:,} rows and {header.n_columns:,} columns, "
            "counted from 1; fetch it again."
        )
