"""Results of shards as columns over the cells of an .h5ad file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.groups import group_names
from cellscribe.engine.atlas.manifest import Manifest
from cellscribe.engine.atlas.plan import FileEntry, Shard
from cellscribe.engine.atlas.tables import OK
from cellscribe.engine.cells.parts import runs
from cellscribe.engine.errors import InputError
from cellscribe.engine.output.fields import NOT_RUN, Fields, plain
from cellscribe.engine.output.h5ad import add_fields

Int64 = npt.NDArray[np.int64]
_CATEGORIES = ("label", "runner_up", "cell_ontology_term_id", "status")
_TEXTS = ("description", "answer")
_NUMBERS = ("score", "margin", "mean_logprob", "grounding")


def is_raw(entry: FileEntry) -> bool:
    """Whether an input was read by the genes of raw."""
    return " from raw.X" in entry.values


class Join:
    """Where the results of shards belong among the cells of a file, and what they say there.

    Parameters
    ----------
    run, manifest, shards
        The run, and those of its shards that are taken.
    names
        Of the cells of the file [N].
    key
        What the names of all columns are made from.
    has_same_genes
        Whether genes of the results can be told as columns of the file.

    Raises
    ------
    InputError
        When two results are about one cell.
    """

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
        self.names, self.key, self.has_same_genes = names, key, has_same_genes
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

    def write(self, file: h5py.File, clusters: pd.DataFrame | None, cells: Join | None) -> int:
        """Write all columns; of a run by clusters their texts, and those that single cells got besides.

        Returns the number of cells with a result, by the very column that says so.
        """
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
            first = self._manifest.files[self._shards[0].file]
            told["top_genes_of"] = "raw.var" if is_raw(first) else "var"
        has_words = bool(obs)
        uns: dict[str, object] = {self.key if has_words else f"{self.key}_embedding": plain(told)}
        add_fields(file, Fields(obs, obsm, uns))
        if "embedding" in self._schema.names:
            self._vectors(file, self._schema.field("embedding").type.list_size)
        statuses = obs.get(f"{self.key}_status")
        return self.n_joined if statuses is None else int((np.asarray(statuses) != NOT_RUN).sum())

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
        """Give each cell that is behind the text of its cluster that text; one that failed says why, as ever."""
        from anndata import io as anndata_io

        column = str(clusters.attrs["column"])
        if column not in file["obs"]:
            raise InputError(f"the file has no obs column {column!r}, which the run's clusters are made of.")
        place_of = {name: place for place, name in enumerate(clusters["cluster"])}
        names = group_names(pd.Series(anndata_io.read_elem(file["obs"][column])))
        places = np.array([place_of.get(name, -1) for name in names], np.int64)
        statuses = np.asarray(self._texts("status"), dtype=object)
        is_embedded = statuses == OK
        statuses[is_embedded & (places < 0)] = NOT_RUN
        is_told = is_embedded & (places >= 0)
        texts = np.full(self._n_cells, "", dtype=object)
        texts[is_told] = clusters["description"].to_numpy(dtype=object)[places[is_told]]
        statuses[is_told] = clusters["status"].to_numpy(dtype=object)[places[is_told]]
        return {f"{self.key}_description": texts, f"{self.key}_status": pd.Categorical(statuses)}
