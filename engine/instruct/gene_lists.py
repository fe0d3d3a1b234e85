"""Lists of the genes that a checkpoint reads and writes, in its order.

``data/genes.txt.gz`` holds the 18,961 genes of the published InstructCells (Fang et al., 2025; MIT, see
THIRD_PARTY.md).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellscribe.engine.errors import InputError

_PACKAGED = Path(__file__).parent / "data" / "genes.txt.gz"


def write_packaged(genes: Sequence[str]) -> None:
    """Make the packaged list anew: a gene a line."""
    text = "".join(f"{one}\n" for one in genes)
    _PACKAGED.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def packaged_genes() -> tuple[str, ...]:
    """Return the genes of the published checkpoints."""
    return tuple(gzip.decompress(_PACKAGED.read_bytes()).decode().splitlines())


def read_genes(path: Path) -> tuple[str, ...]:
    """Read a list: .txt or .tsv (one a line), .json (a list), or .npy (an array of texts, as upstream keeps it).

    Raises
    ------
    InputError
        When it cannot be read, is empty, or names a gene twice.
    """
    try:
        genes = _read(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no list of genes ({error}); write one gene a line.") from error
    if not genes or not all(isinstance(one, str) and one for one in genes):
        raise InputError(f"{path} is no list of genes; write one gene a line.")
    if len(set(genes)) < len(genes):
        double = next(one for one in genes if genes.count(one) > 1)
        raise InputError(f"{path} names the gene {double} twice; take the list that belongs to the checkpoint.")
    return tuple(genes)


def _read(path: Path) -> list[str]:
    if path.suffix == ".npy":
        return [str(one) for one in np.load(path, allow_pickle=False).ravel()]
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        found = json.loads(text)
        if not isinstance(found, list):
            raise ValueError("it holds no list")
        return found
    return [line.split("\t")[0].strip() for line in text.splitlines() if line.strip()]
