"""Nearest vectors among very many, nearly exactly: faiss, with as many lists probed as a measured recall needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import BackendError, InputError
from cellscribe.engine.keyed import cell_key
from cellscribe.engine.search.nearest import nearest

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int, int], None]

_BLOCK = 65_536
_PER_LIST = 64  # vectors that a list's centre is trained on
_NUM_TRIALS = 128  # queries of each kind that recall is measured on
_MIXED = 16  # cells in a query of the second kind
_K = 10
RECALL = 0.99


@dataclass(frozen=True)
class Approximate:
    """How vectors are searched nearly exactly: lists, how many of them are probed, and the recall that was measured."""

    library: str
    lists: int
    probes: int
    recall_at_10: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


def check_approximate() -> None:
    """Raise BackendError when faiss is not installed, before any work is done for it."""
    _faiss()


def build_approximate(vectors: Floats, path: Path, progress: Progress | None = None) -> Approximate:
    """Build an inverted file over vectors of length 1, float32 [N, d], and write it.

    The lists probed are the fewest, a power of two, that find 99 % of the ten nearest, for queries that are cells and
    for queries that are means of cells, which lie between them as texts do.

    Raises
    ------
    BackendError
        When faiss is not installed.
    """
    faiss = _faiss()
    num, width = vectors.shape
    lists = max(1, min(int(4 * num**0.5), num // _PER_LIST))
    draws = np.random.default_rng(cell_key(f"approximate {num} {width}"))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # fewer are no reason for a warning on the terminal
    index.train(np.ascontiguousarray(vectors[np.sort(draws.choice(num, min(num, lists * _PER_LIST), replace=False))]))
    for start in range(0, num, _BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
        if progress:
            progress(min(start + _BLOCK, num), num, 0)
    trials = _trials(vectors, draws)
    truth = [nearest(vectors, queries, _K)[0] for queries in trials]
    probes, recall = 1, 0.0
    while True:
        index.nprobe = probes
        recall = min(_recall(index, queries, places) for queries, places in zip(trials, truth, strict=True))
        if recall >= RECALL or probes >= lists:
            break
        probes = min(2 * probes, lists)
    faiss.write_index(index, str(path))
    return Approximate(f"faiss {faiss.__version__}", lists, probes, round(recall, 4))


def open_approximate(path: Path, probes: int) -> Any:
    """Open what :func:`build_approximate` wrote; its lists stay on disk until they are read.

    Raises
    ------
    BackendError, InputError
        When faiss is not installed, or the file is damaged.
    """
    faiss = _faiss()
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise InputError(f"{path} is missing or damaged; make the index again, or search with --exact.") from error
    index.nprobe = probes
    return index


def _trials(vectors: Floats, draws: np.random.Generator) -> tuple[Floats, Floats]:
    """Queries that are cells, and means of cells; [T, d] each, of length 1."""
    chosen = vectors[np.sort(draws.choice(len(vectors), min(_NUM_TRIALS, len(vectors)), replace=False))]
    mixed = np.stack([vectors[np.sort(draws.integers(0, len(vectors), _MIXED))].mean(axis=0) for _ in chosen])
    mixed /= np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(chosen), mixed.astype(np.float32)


def _recall(index: Any, queries: Floats, truth: npt.NDArray[np.int64]) -> float:
    found = index.search(queries, truth.shape[1])[1]
    return float(np.mean([np.isin(row, other).mean() for row, other in zip(truth, found, strict=True)]))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise BackendError(
            "more than a million cells are searched by faiss; install it with: pip install 'cellscribe[search]', or "
            "search exactly (--exact)."
        ) from error
    return faiss
