"""Results as files: the format by the name's ending, checked before any compute."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from anndata import AnnData

from cellscribe.engine.cells.file_store import stored_kind
from cellscribe.engine.errors import OutputError, UsageError
from cellscribe.engine.output.atomic import check_folder, replacing
from cellscribe.engine.output.fields import KEY, check_key
from cellscribe.engine.output.frame import to_frame
from cellscribe.engine.output.h5ad import write_h5ad
from cellscribe.engine.output.run import Run

COPIED = (
    "{} would be a copy of the input with fields added, which needs an .h5ad input, and {} is none; end the output's "
    "name in .parquet, .jsonl or .csv."
)
SUFFIXES = (".h5ad", ".parquet", ".jsonl", ".csv")
_LIST_SEPARATOR = "; "
_TEXT_LIST, _NUMBER_LIST = pa.list_(pa.string()), pa.list_(pa.float64())
_LIST_TYPES = {"top_genes": _TEXT_LIST, "top_gene_weights": _NUMBER_LIST, "named_genes": _TEXT_LIST}


def check_output(path: Path, source: Path | None = None, suffixes: Iterable[str] = SUFFIXES) -> None:
    """Make sure that `path` can be written, before any work is done.

    Parameters
    ----------
    path
        Where a result will go.
    source
        The input file, which must not be the same file under any name.
    suffixes
        Endings that are understood.

    Raises
    ------
    UsageError
        For an ending that is not understood, or an output that is the input.
    OutputError
        For a missing or unwritable folder, something at `path` that is not a file, or too little space for a copy.
    """
    _check_suffix(path, tuple(suffixes))
    if source is not None and path.exists() and source.exists() and os.path.samefile(path, source):
        raise UsageError(f"{path} is the input itself, which is never written over; choose another name.")
    folder = path.resolve().parent
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a file; choose another name.")
    if not folder.is_dir():
        raise OutputError(f"the folder of {path} does not exist; create it or choose another place.")
    check_folder(folder, path)
    needed = source.stat().st_size if source is not None and source.exists() and path.suffix == ".h5ad" else 0
    if shutil.disk_usage(folder).free < needed:
        raise OutputError(f"{path} needs {needed / 1e9:.1f} GB, more than its disk has free; choose another place.")


def check_run_output(path: Path, source: Path) -> None:
    """Make sure that a run on the cells of `source` can be written to `path`: as :func:`check_output`, and more.

    Raises
    ------
    UsageError
        For an .h5ad output, which is a copy, of cells that are no .h5ad file.
    InputError
        When the cells cannot be read.
    """
    check_output(path, source)
    if path.suffix == ".h5ad" and stored_kind(source) != "h5ad":
        raise UsageError(COPIED.format(path, source))


def check_outputs(paths: Iterable[Path]) -> None:
    """Raise UsageError when two outputs have the same name."""
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise UsageError(f"{path} is named for two outputs; give each its own name.")
        seen.add(path.resolve())


def write_run(run: Run, out: Path, cells: Path | AnnData, key_added: str = KEY) -> None:
    """Write a run in the format of `out`'s ending; the file appears whole or not at all.

    Parameters
    ----------
    run
        What to write.
    out
        ``.h5ad``: all cells of the input with the run's fields added (see :func:`write_h5ad`). ``.parquet``,
        ``.jsonl``, ``.csv``: one row per cell or pool, the columns of :func:`to_frame`; lists are joined with "; " in
        csv, and parquet keeps settings and gene report as JSON in its ``cellscribe`` metadata.
    cells
        The input: the file's path, or the object in memory (which an .h5ad output annotates).
    key_added
        The name the keys of .h5ad are made from.

    Raises
    ------
    UsageError
        For an ending that is not understood, an output that is the input, an .h5ad output of cells that are no .h5ad
        file, or an unusable `key_added`.
    OutputError
        When the file cannot be written.
    """
    check_key(key_added)
    check_output(out, _path_of(cells))
    if out.suffix == ".h5ad" and isinstance(cells, Path) and cells.is_dir():
        raise UsageError(COPIED.format(out, cells))
    if out.suffix == ".h5ad":
        write_h5ad(run, out, cells, key_added)
        return
    write: dict[str, Callable[[Run, Path], None]] = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}
    with replacing(out) as part:
        write[out.suffix](run, part)


def _path_of(cells: Path | AnnData) -> Path | None:
    if isinstance(cells, AnnData):
        return Path(cells.filename) if cells.isbacked and cells.filename is not None else None
    return cells


def _check_suffix(path: Path, suffixes: tuple[str, ...]) -> None:
    if path.suffix not in suffixes:
        known = ", ".join(suffixes[:-1]) + " or " + suffixes[-1] if len(suffixes) > 1 else suffixes[0]
        raise UsageError(f"{path} has no ending that is understood; end the name in {known}.")


def _parquet(run: Run, part: Path) -> None:
    frame = to_frame(run)
    table = pa.Table.from_pandas(frame.drop(columns=[name for name in _LIST_TYPES if name in frame]))
    for name, kind in _LIST_TYPES.items():
        if name in frame:
            place = min(frame.columns.get_loc(name), table.num_columns)
            table = table.add_column(place, name, pa.array(frame[name].tolist(), kind))
    notes = json.dumps({**run.settings, "gene_report": dict(run.gene_report)}, default=str)
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), b"cellscribe": notes}), part)


def _jsonl(run: Run, part: Path) -> None:
    frame = to_frame(run)
    with part.open("w", encoding="utf-8") as file:
        for name, row in zip(frame.index, frame.to_dict("records"), strict=True):
            entry = {str(frame.index.name): name, **{str(key): _number_or_null(value) for key, value in row.items()}}
            file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")


def _number_or_null(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(run: Run, part: Path) -> None:
    frame = to_frame(run)
    for name in _LIST_TYPES:
        if name in frame:
            frame[name] = [_LIST_SEPARATOR.join(map(_short, values)) for values in frame[name]]
    frame.to_csv(part, quoting=csv.QUOTE_MINIMAL, encoding="utf-8")


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
