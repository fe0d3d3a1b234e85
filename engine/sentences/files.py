"""What ``cellscribe c2s transform`` leaves in its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cellscribe.engine.errors import UsageError
from cellscribe.engine.sentences.transform import Sentences, Transform

FORMATS = ("text", "parquet", "arrow")
TEXT, PARQUET, ARROW, GENES, FIT = "sentences.tsv", "sentences.parquet", "arrow", "genes.tsv", "fit.json"
_ARROW_FILE = "data-00000-of-00001.arrow"
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}  # as the datasets library calls them
_SCHEMA = pa.schema([("cell_name", pa.string()), ("cell_sentence", pa.string()), ("num_genes", pa.int32())])


def check_formats(formats: Sequence[str]) -> None:
    """Raise UsageError for a format that is not known."""
    unknown = next((one for one in formats if one not in FORMATS), None)
    if unknown is not None or not formats:
        raise UsageError(f"{unknown!r} is no format of sentences; choose from {', '.join(FORMATS)}.")


def write_sentences(
    transform: Transform, folder: Path, formats: Sequence[str] = FORMATS, columns: Sequence[str] = ()
) -> int:
    """Write the sentences of all cells in every format, and their genes; return how many there are.

    Parameters
    ----------
    folder
        An empty folder.
    formats
        ``text`` (a cell and its sentence a line, tab between; white space in a name becomes one space), ``parquet``,
        ``arrow`` (a folder that ``datasets.load_from_disk`` of Hugging Face opens).
    columns
        Columns of obs to put beside the sentences in parquet and arrow.
    """
    check_formats(formats)
    extra = {name: transform.source.obs_column(name) for name in columns}
    schema = _SCHEMA
    for name, column in extra.items():
        schema = schema.append(pa.field(name, _type_of(column)))
    count = 0
    with ExitStack() as stack:
        text = stack.enter_context((folder / TEXT).open("w", encoding="utf-8")) if "text" in formats else None
        writers: list[Any] = []
        if "parquet" in formats:
            writers.append(stack.enter_context(pq.ParquetWriter(folder / PARQUET, schema, compression="zstd")))
        if "arrow" in formats:
            (folder / ARROW).mkdir()
            writers.append(stack.enter_context(pa.ipc.new_stream(str(folder / ARROW / _ARROW_FILE), schema)))
        for block in transform.blocks():
            if text is not None:
                text.writelines(_lines(block))
            if writers:
                batch = _batch(block, schema, extra)
                for writer in writers:
                    writer.write_batch(batch)
            count += len(block.texts)
    if "arrow" in formats:
        _describe_arrow(folder / ARROW, schema)
    _write_genes(transform, folder / GENES)
    return count


def num_spaced(transform: Transform) -> int:
    """Return how many cells have another name in the format ``text``, whose lines and tabs part cells."""
    return sum(_one_line(str(name)) != name for name in transform.source.obs_names[transform.census.rows])


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _lines(block: Sentences) -> Iterator[str]:
    return (f"{_one_line(name)}\t{text}\n" for name, text in zip(block.names, block.texts, strict=True))


def _type_of(column: pd.Series[Any]) -> pa.DataType:
    """Numbers as they are stored, those that may be missing too; all else as text."""
    dtype = getattr(column.dtype, "numpy_dtype", column.dtype)
    return pa.from_numpy_dtype(dtype) if isinstance(dtype, np.dtype) and dtype.kind in "biuf" else pa.string()


def _batch(block: Sentences, schema: pa.Schema, extra: dict[str, Any]) -> pa.RecordBatch:
    arrays = [
        pa.array(block.names, pa.string()),
        pa.array(block.texts, pa.string()),
        pa.array(block.num_words, pa.int32()),
    ]
    for name, column in extra.items():
        kind, values = schema.field(name).type, column.iloc[block.rows]
        if kind == pa.string():
            values = values.astype(object)
            arrays.append(
                pa.array(
                    [None if missing else str(one) for one, missing in zip(values, values.isna(), strict=True)], kind
                )
            )
        else:
            arrays.append(pa.array(values if hasattr(values.dtype, "numpy_dtype") else values.to_numpy(), kind))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _describe_arrow(folder: Path, schema: pa.Schema) -> None:
    """Write what the datasets library of Hugging Face wants to find beside the data."""
    features = {
        field.name: {"dtype": _FLOATS.get(str(field.type), str(field.type)), "_type": "Value"} for field in schema
    }
    with (folder / _ARROW_FILE).open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    state: dict[str, Any] = {
        "_data_files": [{"filename": _ARROW_FILE}],
        "_fingerprint": fingerprint,
        "_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False,
        "_split": None,
    }  # fmt: skip
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=1), encoding="utf-8")


def _write_genes(transform: Transform, path: Path) -> None:
    """Write the vocabulary in the order of the columns: genes, how many cells express each, names as they were."""
    genes, counts = transform.genes, transform.num_cells.tolist()
    rows: Iterable[tuple[str, int, str]] = zip(genes.words, counts, genes.names, strict=True)
    text = "".join(f"{gene}\t{count}\t{name}\n" for gene, count, name in rows)
    path.write_text(f"gene\tnum_cells\tname\n{text}", encoding="utf-8")
