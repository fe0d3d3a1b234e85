"""Indexes made of cells, block by block, so that one that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import InputError, OutputError, UsageError
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.folder import check_target, staging
from cellscribe.engine.output.run import Run
from cellscribe.engine.search.approximate import build_approximate, check_approximate
from cellscribe.engine.search.index import CELLS, MANIFEST, NEAREST, SCHEMA, VECTORS, CellIndex, open_index, unit_rows

Rows = npt.NDArray[np.int64]
Progress = Callable[[int, int, int], None]
Nearest = Literal["auto", "exact", "approximate"]

BLOCK_CELLS = 4096
MANY = 1_000_000  # cells past which an index is searched by faiss
_SETTINGS = "settings.json"
_OWN = ("cell_id", "row", "query", "rank", "score")  # columns of what is found


class Embeds(Protocol):
    """What turns cells into vectors."""

    def __call__(self, source: CellSource, *, rows: Rows, progress: Progress | None) -> Run:
        """Embed some cells."""
        ...


@dataclass(frozen=True)
class Built:
    """An index that was made, and why cells are not in it."""

    index: CellIndex
    why_lost: dict[str, str]


def check_index(folder: Path) -> None:
    """Raise OutputError unless an index can be made at a place."""
    check_target(folder)


def build_index(
    embed: Embeds,
    bundle: Bundle,
    source: CellSource,
    folder: Path,
    *,
    rows: Rows | None = None,
    columns: Sequence[str] = (),
    kind: Nearest = "auto",
    progress: Progress | None = None,
    block_cells: int = BLOCK_CELLS,
) -> Built:
    """Embed cells and write an index.

    What is embedded is kept in a folder beside the index until that is whole, so that the same call goes on after a
    stop.

    Parameters
    ----------
    embed
        Turns cells into vectors with `bundle`.
    folder
        A new folder.
    rows
        Cells to take; all without it.
    columns
        Of obs, to be kept and shown beside what is found.
    kind
        ``exact`` compares every vector with a query, ``approximate`` has faiss find most of the nearest, ``auto`` takes
        that past a million cells.

    Raises
    ------
    UsageError
        For a column that is named as one of what is found, or a `kind` that there is not.
    InputError
        When a column is missing, cells cannot be read, or none could be embedded.
    OutputError
        When the folder exists already or cannot be written, or a stopped index has other cells or another bundle.
    BackendError
        When the device fails, or faiss is not installed.
    """
    check_index(folder)
    rows = np.arange(source.n_cells) if rows is None else rows
    kept = _kept(source, rows, columns)
    if kind not in get_args(Nearest):
        raise UsageError(f"nearest is {kind!r}; choose one of {', '.join(get_args(Nearest))}.")
    if kind == "approximate" or (kind == "auto" and len(rows) > MANY):
        check_approximate()
    wanted = {
        "bundle_hash": bundle.hash, "fingerprint": source.fingerprint(), "num_cells": len(rows),
        "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16], "block_cells": block_cells,
    }  # fmt: skip
    work = folder.with_name(f".{folder.name}.part")
    _start(work, wanted, folder)
    settings, lost = _embed_blocks(embed, source, rows, work, block_cells, progress)
    blocks = [np.load(path, mmap_mode="r", allow_pickle=False) for path in _blocks(work, len(rows), block_cells)]
    usable = np.concatenate([np.isfinite(block).all(axis=1) for block in blocks])
    if not usable.any():
        raise InputError(f"none of the cells of {source.name} could be embedded ({next(iter(lost.values()), 'why')}).")
    width, num_cells = blocks[0].shape[1], int(usable.sum())
    with staging(folder) as part:
        vectors = np.lib.format.open_memmap(part / VECTORS, "w+", np.float32, (num_cells, width))
        start = 0
        for block in blocks:
            good = unit_rows(block[np.isfinite(block).all(axis=1)])
            vectors[start : start + len(good)] = good
            start += len(good)
        vectors.flush()
        table = {"cell_id": source.obs_names[rows[usable]].astype(str), "row": rows[usable]}
        table |= {name: column[usable] for name, column in kept.items()}
        pd.DataFrame(table).to_parquet(part / CELLS, index=False)
        wants_faiss = kind == "approximate" or (kind == "auto" and num_cells > MANY)
        found = build_approximate(vectors, part / NEAREST, progress) if wants_faiss else None
        manifest = {
            "schema": SCHEMA,
            "bundle": {
                "name": bundle.name, "hash": bundle.hash, "family": bundle.manifest.family,
                "folder": str(bundle.folder.resolve()),
            },
            "input": source.path.name if source.path else "AnnData in memory",
            "fingerprint": wanted["fingerprint"],
            "num_cells": num_cells,
            "num_lost": len(rows) - num_cells,
            "width": width,
            "approximate": None if found is None else found.as_dict(),
            "settings": settings,
        }  # fmt: skip
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1, default=str) + "\n", encoding="utf-8")
        del vectors
    shutil.rmtree(work, ignore_errors=True)
    return Built(open_index(folder), lost)


def _kept(source: CellSource, rows: Rows, columns: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Return columns of obs [N], with texts for values of several types, which no table on disk can hold."""
    own = next((name for name in columns if name in _OWN), None)
    if own is not None:
        raise UsageError(
            f"the column {own!r} cannot be kept, as what is found has one of that name; rename it in obs, or leave it "
            "out."
        )
    kept = {name: source.obs_column(name).iloc[rows] for name in columns}
    return {
        name: np.array([None if is_none else str(one) for one, is_none in zip(column, column.isna(), strict=True)])
        if column.to_numpy().dtype == object
        else column.to_numpy()
        for name, column in kept.items()
    }


def _start(work: Path, wanted: dict[str, Any], folder: Path) -> None:
    """Make the folder of blocks, or make sure that the one that is there holds blocks of the same cells."""
    if work.exists():
        try:
            there = json.loads((work / _SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            there = None
        if there != wanted:
            raise OutputError(
                f"{work} holds a stopped index of other cells or another bundle than {folder} is to have; remove it, "
                "or choose another name."
            )
        return
    try:
        work.mkdir()
    except OSError as error:
        raise OutputError(f"{work} cannot be made ({error.strerror}); choose another place.") from error
    with replacing(work / _SETTINGS) as part:
        part.write_text(json.dumps(wanted), encoding="utf-8")


def _blocks(work: Path, num_rows: int, block_cells: int) -> Iterator[Path]:
    return (work / f"{start:012d}.npy" for start in range(0, num_rows, block_cells))


def _embed_blocks(
    embed: Embeds, source: CellSource, rows: Rows, work: Path, block_cells: int, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Embed the blocks that are missing; return the settings and why cells were lost."""
    settings: dict[str, Any] = {}
    lost: dict[str, str] = {}
    for start, path in zip(range(0, len(rows), block_cells), _blocks(work, len(rows), block_cells), strict=True):
        note = path.with_suffix(".json")
        if not (path.exists() and note.exists()):
            _embed_block(embed, source, rows[start : start + block_cells], path, _after(progress, start, len(rows)))
        told = json.loads(note.read_text(encoding="utf-8"))
        settings = settings or told["settings"]
        lost |= told["lost"]
        if progress:
            progress(min(start + block_cells, len(rows)), len(rows), 0)
    return settings, lost


def _embed_block(embed: Embeds, source: CellSource, rows: Rows, path: Path, progress: Progress | None) -> None:
    run = embed(source, rows=rows, progress=progress)
    assert run.embeddings is not None
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, run.embeddings, allow_pickle=False)
    told = {
        "lost": {one.cell_id: one.status.removeprefix("failed: ") for one in run.failed},
        "settings": dict(run.settings),
    }
    with replacing(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(told, default=str), encoding="utf-8")


def _after(progress: Progress | None, start: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _, tokens: progress(start + done, total, tokens)
