"""Results of a run joined to the cells of an .h5ad file, its matrices never read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cellscribe.engine.atlas.clusters import CELLS, read_clusters
from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.manifest import Manifest
from cellscribe.engine.atlas.plan import FileEntry, Shard, genes_key
from cellscribe.engine.cells.parts import runs
from cellscribe.engine.errors import InputError, OutputError, UsageError
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.fields import NOT_RUN, Fields, check_key, plain
from cellscribe.engine.output.files import check_output
from cellscribe.engine.output.h5ad import add_fields, can_extend, names_in
from cellscribe.engine.output.run import count

Int64 = npt.NDArray[np.int64]
_CATEGORIES = ("label", "runner_up", "cell_ontology_term_id", "status")
_TEXTS = ("description", "answer")
_NUMBERS = ("score", "margin", "mean_logprob", "grounding")


@dataclass(frozen=True)
class Joined:
    """What was joined: cells with a result, cells of the file, and results whose cells the file lacks."""

    n_joined: int
    n_cells: int
    n_elsewhere: int
    output: Path
    has_genes: bool = True

    def sentence(self) -> str:
        """Say it."""
        elsewhere = f"; {count(self.n_elsewhere, 'result')} about cells that are not in it" if self.n_elsewhere else ""
        genes = "" if self.has_genes else "; top genes are left out, as its genes are others than those of the inputs"
        told = f"{self.n_joined:,} of {count(self.n_cells, 'cell')} have a result{elsewhere}{genes}"
        return f"{told}; wrote {self.output}"


def merge_into(
    folder: Path | str, into: Path, output: Path, *, key_added: str = "cellscribe", is_partial: bool = False
) -> Joined:
    """Join the results of a run to the cells of a file, by their names.

    Where the file is one of the run's inputs, only its own results are taken; otherwise the names of cells have to be
    unique over all inputs. Written are the keys of :func:`cellscribe.engine.output.fields.fields_of`; vectors go to the
    disk shard by shard, and the matrices of the file are copied as they are. Of a run by clusters each cell gets the
    text of its cluster, or its own where it has one.

    Parameters
    ----------
    folder
        Of the run.
    into
        The .h5ad file.
    output
        Where the joined file goes; `into` itself is replaced when the new file is complete.
    is_partial
        Whether a run that is not finished is taken too; the status of other cells is then "not run".

    Raises
    ------
    UsageError
        For a run that is not finished.
    InputError
        When names do not tell cells apart, or none is in the file.
    OutputError
        When the file cannot be written.
    """
    run = AtlasFolder(folder)
    manifest, _ = run.read_manifest()
    done = run.finished(manifest)
    missing = len(manifest.plan.shards) - len(done)
    if missing and not is_partial:
        raise UsageError(
            f"the run in {folder} lacks {count(missing, 'shard')}; finish it with --resume, or add --partial."
        )
    check_key(key_added)
    check_output(output, None, (".h5ad",))
    if not into.is_file():
        raise InputError(f"there is no file {into}; check the name.")
    if not can_extend(into):
        raise InputError(f"{into} is no .h5ad file of today's layout; read it with anndata and write it again.")
    shards = [one for one in _own(manifest, into) if one.number in done]
    with h5py.File(into, "r") as file:
        names = pa.array(names_in(file["obs"]), pa.string())
        has_same_genes = all(_has_genes_of(file, manifest.files[i]) for i in {one.file for one in shards})
        clusters = read_clusters(run)
    if pc.count_distinct(names).as_py() != len(names):
        raise InputError(f"{into} names two cells alike; run adata.obs_names_make_unique() and write it again.")
    joined = _Join(run, manifest, shards, names, key_added, has_same_genes)
    if not joined.n_joined:
        raise InputError(
            f"no cell of {into} has a result in {folder}; merge into one of the run's inputs, or a file of their cells."
        )
    with replacing(output) as part:
        shutil.copyfile(into, part)
        try:
            with h5py.File(part, "r+") as file:
                joined.write(file, clusters, _cells_of(run, into, names, joined) if clusters is not None else None)
        except OSError as error:
            raise OutputError(f"{output} could not be written ({error}); free the space.") from error
    has_genes = has_same_genes or manifest.settings["task"] != "describe"
    return Joined(joined.n_joined, len(names), joined.n_elsewhere, output, has_genes)


def _cells_of(run: AtlasFolder, into: Path, names: pa.Array, whole: _Join) -> _Join | None:
    """Return the texts of single cells that a run by clusters wrote besides; None without any."""
    below = run.below(CELLS)
    if not below.is_begun:
        return None
    manifest, _ = below.read_manifest()
    done = below.finished(manifest)
    shards = [one for one in _own(manifest, into) if one.number in done]
    return _Join(below, manifest, shards, names, whole.key, whole.has_same_genes) if shards else None


def _own(manifest: Manifest, into: Path) -> list[Shard]:
    """Return the shards of a file that is one of the inputs; all shards for another file."""
    same = [i for i, one in enumerate(manifest.files) if Path(one.path).resolve() == into.resolve()]
    return [one for one in manifest.plan.shards if not same or one.file in same]


def _has_genes_of(file: h5py.File, entry: FileEntry) -> bool:
    """Whether the genes that an input was read by stand in a file as they stand there."""
    frame = "raw/var" if _is_raw(entry) else "var"
    return frame in file and genes_key(names_in(file[frame])) == entry.genes_key


def _is_raw(entry: FileEntry) -> bool:
    return " from raw.X" in entry.values


class _Join:
    """Where the results of shards belong."""

    def __init__(
        self,
        run: AtlasFolder,
        manifest: Manifest,
        shards: list[Shard],
        names: pa.Array,
        key: str,
        has_same_genes: bool,
    ) -> None:
        self._run, self._manifest, self._shards = run, manifest, shards
        self.key, self.has_same_genes = key, has_same_genes
        self._schema = run.schema_of(shards[0]) if shards else pa.schema([])
        self._n_cells = len(names)
        self._places: list[Int64] = []
        is_taken = np.zeros(len(names), dtype=bool)
        for shard in shards:
            ids = run.read_shard(shard, ["cell_id"])["cell_id"]
            places = pc.fill_null(pc.index_in(ids, value_set=names), -1).to_numpy().astype(np.int64)
            here = places[places >= 0]
            twice = here[is_taken[here]]
            if len(twice):
                raise InputError(
                    f"the run has two results for the cell {names[int(twice[0])].as_py()!r}, from different inputs; "
                    "merge into the inputs one by one."
                )
            is_taken[here] = True
            self._places.append(places)
        self.is_joined = is_taken
        self.n_joined = int(is_taken.sum())
        self.n_elsewhere = sum(int((one < 0).sum()) for one in self._places)

    def write(self, file: h5py.File, clusters: pd.DataFrame | None, cells: _Join | None) -> None:
        """Write all columns; of a run by clusters their texts, and those that single cells got besides."""
        obs, obsm = self._columns()
        if clusters is not None:
            obs = self._of_clusters(file, clusters)
            if cells is not None:
                mine, obsm = cells._columns()
                for name in (f"{self.key}_description", f"{self.key}_status"):
                    mine[name] = np.where(cells.is_joined, np.asarray(mine[name]), np.asarray(obs[name]))
                mine[f"{self.key}_status"] = pd.Categorical(mine[f"{self.key}_status"])
                obs = mine
        told = {"bundle": self._manifest.bundle["name"], "bundle_hash": self._manifest.bundle["hash"],
                "run": self._manifest.run, **self._manifest.settings,
                "versions": self._manifest.versions}  # fmt: skip
        if clusters is not None:
            told["pooled_by"] = clusters.attrs["column"]
        if obsm:
            is_raw = _is_raw(self._manifest.files[self._shards[0].file])
            told["top_genes_of"] = "raw.var" if is_raw else "var"
        has_words = bool(obs)
        uns: dict[str, object] = {self.key if has_words else f"{self.key}_embedding": plain(told)}
        add_fields(file, Fields(obs, obsm, uns))
        if "embedding" in self._schema.names:
            self._vectors(file, self._schema.field("embedding").type.list_size)

    def _columns(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Return what the shards say of the cells of the file, for obs and obsm, less the vectors."""
        found, obs = set(self._schema.names), dict[str, Any]()
        if found.isdisjoint({"description", "label"}):
            return {}, {}
        for name in (*_TEXTS, *_CATEGORIES):
            if name in found:
                obs[f"{self.key}_{name}"] = self._texts(name)
        for name in _NUMBERS:
            if name in found:
                obs[f"{self.key}_{name}"] = self._numbers(name, np.float32, np.nan)
        if "num_tokens" in found:
            obs[f"{self.key}_num_tokens"] = self._numbers("num_tokens", np.int32, 0)
        return obs, self._top_genes() if "top_genes" in found and self.has_same_genes else {}

    def _tables(self, *columns: str) -> Iterator[tuple[pa.Table, Int64]]:
        for shard, places in zip(self._shards, self._places, strict=True):
            yield self._run.read_shard(shard, columns), places

    def _texts(self, name: str) -> npt.NDArray[np.object_] | pd.Categorical:
        blank = NOT_RUN if name == "status" else "" if name in _TEXTS else None
        values = np.full(self._n_cells, blank, dtype=object)
        for table, places in self._tables(name):
            told = np.array(table[name].to_pylist(), dtype=object)
            values[places[places >= 0]] = told[places >= 0]
        return pd.Categorical(values) if name in _CATEGORIES else values

    def _numbers(self, name: str, dtype: Any, blank: float) -> npt.NDArray[Any]:
        values = np.full(self._n_cells, blank, dtype)
        for table, places in self._tables(name):
            told = table[name].to_numpy(zero_copy_only=False)
            values[places[places >= 0]] = told[places >= 0]
        return values

    def _top_genes(self) -> dict[str, npt.NDArray[Any]]:
        most = max((pc.max(pc.list_value_length(t["top_genes"])).as_py() or 0) for t, _ in self._tables("top_genes"))
        if not most:
            return {}
        columns = np.full((self._n_cells, most), -1, np.int32)
        weights = np.zeros((self._n_cells, most), np.float32)
        for table, places in self._tables("top_gene_columns", "top_gene_weights"):
            for values, name in ((columns, "top_gene_columns"), (weights, "top_gene_weights")):
                told = table[name].combine_chunks()
                lengths = np.diff(told.offsets.to_numpy())
                rows = np.repeat(places, lengths)
                within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                is_here = rows >= 0
                values[rows[is_here], within[is_here]] = told.flatten().to_numpy()[is_here]
        return {f"{self.key}_top_genes": columns, f"{self.key}_top_gene_weights": weights}

    def _vectors(self, file: h5py.File, width: int) -> None:
        """Write vectors shard by shard, so that they are never in memory together."""
        group, name = file["obsm"], f"X_{self.key}"
        if name in group:
            del group[name]
        shape = (self._n_cells, width)
        chunks = (min(4096, self._n_cells), width)
        whole = group.create_dataset(name, shape, np.float32, chunks=chunks, fillvalue=np.nan)
        whole.attrs["encoding-type"], whole.attrs["encoding-version"] = "array", "0.2.0"
        for table, places in self._tables("embedding"):
            lists = table["embedding"].combine_chunks()
            vectors = lists.values.to_numpy(zero_copy_only=False).reshape(-1, width).copy()
            vectors[~lists.is_valid().to_numpy(zero_copy_only=False)] = np.nan
            order = np.argsort(places, kind="stable")
            order = order[places[order] >= 0]
            at = 0
            for start, stop in runs(places[order]):
                whole[start:stop] = vectors[order[at : at + stop - start]]
                at += stop - start

    def _of_clusters(self, file: h5py.File, clusters: pd.DataFrame) -> dict[str, Any]:
        """Give each cell the text of its cluster."""
        from anndata import io as anndata_io

        column = str(clusters.attrs["column"])
        if column not in file["obs"]:
            raise InputError(f"the file has no obs column {column!r}, which the run's clusters are made of.")
        labels = pd.Series(anndata_io.read_elem(file["obs"][column])).astype(object)
        text = clusters.set_index("cluster")
        known = [str(one) if pd.notna(one) and str(one) in text.index else None for one in labels]
        blank = ("", NOT_RUN)
        said = [blank if one is None else (text.at[one, "description"], text.at[one, "status"]) for one in known]
        return {
            f"{self.key}_description": np.array([one for one, _ in said], dtype=object),
            f"{self.key}_status": pd.Categorical(np.array([one for _, one in said], dtype=object)),
        }
