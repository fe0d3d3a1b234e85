"""Lists of the genes that a checkpoint reads and writes, in its order.

``data/genes.txt.gz`` holds the 18,961 genes of the published InstructCells (Fang et al., 2025; MIT, see
THIRD_PARTY.md).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import InputError

_HEADERS = ("gene", "genes", "gene_name", "gene_names", "gene_symbol", "gene_symbols", "symbol", "symbols")
_PACKAGED = Path(__file__).parent / "data" / "genes.txt.gz"


def write_packaged(genes: Sequence[str]) -> None:
    """Make the packaged list anew: a gene a line."""
    text = "".join(f"{one}\n" for one in genes)
    _PACKAGED.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def packaged_genes() -> tuple[str, ...]:
    """Return the genes of the published checkpoints."""
    return tuple(gzip.decompress(_PACKAGED.read_bytes()).decode().splitlines())


def read_genes(path: Path) -> tuple[str, ...]:
    """Read a list: .txt, .tsv or .csv (one a line, in its first column), .json (a list), or .npy (an array of texts).

    A first line that says what a column holds ("gene", "symbol") is no gene. The order is the checkpoint's, which
    nothing in a list tells: it is taken as given.

    Raises
    ------
    InputError
        When it cannot be read, is empty, or names a gene twice, or a number for a gene.
    """
    try:
        genes = _read(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no list of genes ({error}); write one gene a line.") from error
    if not genes or not all(isinstance(one, str) and one for one in genes):
        raise InputError(f"{path} is no list of genes; write one gene a line.")
    number = next((one for one in genes if _is_number(one)), None)
    if number is not None:
        raise InputError(
            f"{path} names {number!r}, a number, where a gene belongs; write symbols, in the first column."
        )
    if len(set(genes)) < len(genes):
        double = next(one for one in genes if genes.count(one) > 1)
        raise InputError(f"{path} names the gene {double} twice; take the list that belongs to the checkpoint.")
    return tuple(genes)


def _read(path: Path) -> list[str]:
    if path.suffix == ".npy":
        return _texts(_array(path))
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        found = json.loads(text)
        if not isinstance(found, list):
            raise ValueError("it holds no list")
        return found
    rows = csv.reader(io.StringIO(text), delimiter="," if path.suffix == ".csv" else "\t")
    found = [row[0].strip() for row in rows if any(one.strip() for one in row)]
    return found[1:] if found and found[0].lower() in _HEADERS else found


def _texts(array: npt.NDArray[np.generic]) -> list[str]:
    """Return an array's texts, or raise ValueError for one of anything else."""
    if array.dtype.kind == "S":
        return [one.decode() for one in array.ravel().tolist()]
    if array.dtype.kind != "U":
        raise ValueError(f"it holds {array.dtype} and no texts")
    return [str(one) for one in array.ravel().tolist()]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _array(path: Path) -> npt.NDArray[np.generic]:
    """Load an array, or raise ValueError: those of objects are code, which is never run."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        if header(file)[2].hasobject:
            raise ValueError("it holds objects, which may be code; save it with numpy.save(path, genes.astype(str))")
    found: npt.NDArray[np.generic] = np.load(path, allow_pickle=False)
    return found
