"""A run written beside its cells as .h5ad, the matrix never loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from anndata import io as anndata_io

from cellscribe.engine.output.anndata import annotate, check_cells
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.fields import Fields, fields_of
from cellscribe.engine.output.run import Run

_PARENTS = ("obs", "obsm", "uns")


def write_h5ad(run: Run, out: Path, cells: Path | AnnData, key_added: str) -> None:
    """Write the input's cells with a run's fields added, under the keys of ``fields_of``.

    A file is copied byte for byte and only the new fields are added to the copy, so the rest of it is preserved and
    its matrices are not read. An AnnData object is annotated in place and written whole.

    Raises
    ------
    OutputError
        When the file cannot be written, or the input's cells have changed.
    """
    if isinstance(cells, AnnData):
        annotate(cells, run, key_added)
        write_new(cells, out)
    elif can_extend(cells):
        with replacing(out) as part:
            shutil.copyfile(cells, part)
            _extend(part, run, key_added, str(cells))
    else:
        adata = read_h5ad(cells)
        annotate(adata, run, key_added)
        write_new(adata, out)


def write_new(adata: AnnData, out: Path) -> None:
    """Write cells that are in memory; the file appears whole or not at all."""
    with replacing(out) as part:
        part.unlink()  # a backed object is written in append mode, which wants no empty file
        anndata_io.write_h5ad(part, adata)


def can_extend(path: Path) -> bool:
    """Whether obs, obsm and uns are groups of this very file in today's layout (not links, not compound arrays)."""
    with h5py.File(path, "r") as file:
        links = [file.get(name, getlink=True) for name in _PARENTS if name in file]
        groups = [file[name] for name in _PARENTS if name in file]
        own = all(isinstance(link, h5py.HardLink) for link in links)
        modern = all(isinstance(group, h5py.Group) for group in groups)
        return own and modern and "obs" in file and "column-order" in file["obs"].attrs


def names_in(frame: h5py.Group) -> list[str]:
    """Return the index of a stored data frame."""
    index = frame[frame.attrs["_index"]]
    values = index["values"] if isinstance(index, h5py.Group) else index
    names: list[str] = values.asstr()[()].tolist()
    return names


def _extend(path: Path, run: Run, key_added: str, source: str) -> None:
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        n_cells = _length(obs[obs.attrs["_index"]])
        check_cells(run, n_cells, source)
        add_fields(file, fields_of(run, n_cells, key_added))


def _length(index: h5py.Dataset | h5py.Group) -> int:
    """Length of a stored index; anndata 0.13 writes it as a group of values and mask."""
    return len(index["values"]) if isinstance(index, h5py.Group) else len(index)


def add_fields(file: h5py.File, fields: Fields) -> None:
    """Add fields to an open file; those of the same names are replaced."""
    for name in fields.stale_obs:
        if name in file["obs"]:
            del file["obs"][name]
    for name, column in fields.obs.items():
        _write(file["obs"], name, column)
    for name in fields.stale:
        if name in file.get("obsm", {}):
            del file["obsm"][name]
    for parent, entries in (("obsm", fields.obsm), ("uns", fields.uns)):
        if parent not in file:
            anndata_io.write_elem(file, parent, {})
        for name, entry in entries.items():
            _write(file[parent], name, entry)
    _set_column_order(file["obs"], list(fields.obs), fields.stale_obs)


def _write(group: h5py.Group, name: str, value: object) -> None:
    if name in group:
        del group[name]
    anndata_io.write_elem(group, name, value)


def _set_column_order(obs: h5py.Group, added: list[str], gone: tuple[str, ...]) -> None:
    there = [name for name in map(str, obs.attrs["column-order"]) if name not in gone]
    names = list(pd.unique(np.array([*there, *added], dtype=object)))
    obs.attrs.create("column-order", np.array(names, dtype=object), dtype=h5py.string_dtype())
