"""Results of a run joined to the cells of an .h5ad file, its matrices never read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.compute as pc

from cellscribe.engine.atlas.clusters import CELLS, read_clusters
from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.join import Join, is_raw
from cellscribe.engine.atlas.manifest import Manifest
from cellscribe.engine.atlas.plan import FileEntry, Shard, genes_key
from cellscribe.engine.cells.kinds import checked_kind
from cellscribe.engine.errors import InputError, OutputError, UsageError
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.fields import check_key
from cellscribe.engine.output.files import check_output
from cellscribe.engine.output.h5ad import can_extend, names_in
from cellscribe.engine.output.run import count


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
    manifest, done = _taken(run, is_partial=is_partial)
    check_key(key_added)
    check_output(output, None, (".h5ad",))
    _check_cells(into)
    shards = [one for one in _own(manifest, into) if one.number in done]
    with h5py.File(into, "r") as file:
        names = pa.array(names_in(file["obs"]), pa.string())
        has_same_genes = all(_has_genes_of(file, manifest.files[i]) for i in {one.file for one in shards})
        clusters = read_clusters(run)
    if pc.count_distinct(names).as_py() != len(names):
        raise InputError(f"{into} names two cells alike; run adata.obs_names_make_unique() and write it again.")
    joined = Join(run, manifest, shards, names, key_added, has_same_genes)
    if not joined.n_joined:
        raise InputError(
            f"no cell of {into} has a result in {folder}; merge into one of the run's inputs, or a file of their cells."
        )
    cells = None if clusters is None else _cells_of(run, into, joined, is_partial=is_partial)
    with replacing(output) as part:
        shutil.copyfile(into, part)
        try:
            with h5py.File(part, "r+") as file:
                told = joined.write(file, clusters, cells)
        except OSError as error:
            raise OutputError(f"{output} could not be written ({error}); free the space.") from error
    has_genes = has_same_genes or manifest.settings["task"] != "describe"
    return Joined(told, len(names), joined.n_elsewhere, output, has_genes)


def _check_cells(into: Path) -> None:
    """Raise InputError for what is no .h5ad file that columns can be added to."""
    if not into.is_file():
        raise InputError(f"there is no file {into}; check the name.")
    checked_kind(into)
    try:
        is_modern = can_extend(into)
    except (OSError, RuntimeError) as error:  # of HDF5, for what is cut off or damaged
        raise InputError(f"{into} is damaged or not complete; write it again, or fetch it again.") from error
    if not is_modern:
        raise InputError(f"{into} is no .h5ad file of today's layout; read it with anndata and write it again.")


def _taken(run: AtlasFolder, *, is_partial: bool) -> tuple[Manifest, set[int]]:
    """Return the manifest of a run and the numbers of its shards; UsageError where some lack and may not."""
    manifest, _ = run.read_manifest()
    done = {*run.finished(manifest)}
    missing = len(manifest.plan.shards) - len(done)
    if missing and not is_partial:
        raise UsageError(
            f"the run in {run.name} lacks {count(missing, 'shard')}; finish it with --resume, or add --partial."
        )
    return manifest, done


def _cells_of(run: AtlasFolder, into: Path, whole: Join, *, is_partial: bool) -> Join | None:
    """Return the texts of single cells that a run by clusters wrote besides; None without any."""
    below = run.below(CELLS)
    if not below.is_begun:
        return None
    manifest, done = _taken(below, is_partial=is_partial)
    shards = [one for one in _own(manifest, into) if one.number in done]
    return Join(below, manifest, shards, whole.names, whole.key, whole.has_same_genes) if shards else None


def _own(manifest: Manifest, into: Path) -> list[Shard]:
    """Return the shards of a file that is one of the inputs; all shards for another file."""
    same = [i for i, one in enumerate(manifest.files) if Path(one.path).resolve() == into.resolve()]
    return [one for one in manifest.plan.shards if not same or one.file in same]


def _has_genes_of(file: h5py.File, entry: FileEntry) -> bool:
    """Whether the genes that an input was read by stand in a file as they stand there."""
    frame = "raw/var" if is_raw(entry) else "var"
    return frame in file and genes_key(names_in(file[frame])) == entry.genes_key
