from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pyarrow as pa
import pytest

from cellscribe.engine.atlas import carried
from cellscribe.engine.atlas.carried import FileHeader, shard_tables
from cellscribe.engine.atlas.carried_source import CarriedSources
from cellscribe.engine.atlas.inputs import find_inputs
from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.plan import Plan, look_through
from cellscribe.engine.atlas.sources import Sources
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import InputError
from cellscribe.engine.packaged import packaged_cells

JOB = AtlasJob("embed", shard_cells=40, where="n >= 3")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Packaged cells, one of them with a bad value, and a column to choose by."""
    cells = ad.read_h5ad(packaged_cells())[:100].copy()
    cells.obs["n"] = np.arange(100)
    cells.X.data[cells.X.indptr[50]] = -1.0
    cells.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def _plan(path: Path) -> Plan:
    return look_through(find_inputs([str(path)]), JOB)


def test_carried_cells_are_those_of_the_file(path: Path) -> None:
    plan = _plan(path)
    tables = list(shard_tables(JOB, plan.files[0], plan.shards))
    with Sources(JOB, plan.files) as files, CarriedSources(JOB, plan.files) as here:
        shards = [here.hold(one) for one in tables]
        assert tuple(shards) == plan.shards
        for shard in plan.shards:
            there, rows = files.of(shard)
            source, same = here.of(shard)
            assert np.array_equal(rows, same)
            assert np.array_equal(there.obs_names[rows], source.obs_names[rows])
            for ours, theirs in zip(source.blocks(rows, 16), there.blocks(rows, 16), strict=True):
                assert np.array_equal(ours.rows, theirs.rows)
                for name in ("indptr", "indices", "data"):
                    assert np.array_equal(getattr(ours.part, name), getattr(theirs.part, name))
        assert list(source.bad_cells) == [50]
        assert source.bad_cells == there.bad_cells
        assert FileHeader.of(here.of(plan.shards[0])[0]) == FileHeader.of(files.of(plan.shards[0])[0])


def test_a_released_shard_leaves_nothing_behind_and_other_rows_come_from_the_file(path: Path) -> None:
    plan = _plan(path)
    with CarriedSources(JOB, plan.files) as here:
        for table in shard_tables(JOB, plan.files[0], plan.shards):
            here.hold(table)
        source, rows = here.of(plan.shards[1])
        assert source.bad_cells
        here.release(plan.shards[1])
        assert not source.bad_cells
        assert set(source.obs_names[rows]) == {""}
        [block] = source.blocks([0, 60])
        with open_cells(packaged_cells()) as file:
            assert np.array_equal(block.part.data, next(iter(file.blocks([0, 60]))).part.data)
        assert source.obs_column("n").tolist() == list(range(100))


def test_cells_that_cannot_be_read_say_why_and_the_others_are_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = CellSource.blocks

    def damaged(self: CellSource, rows: object = None, block_cells: int = 512) -> object:
        if type(self) is CellSource and 20 in np.asarray(rows):
            raise InputError("a chunk is damaged; write the file again.")
        return real(self, rows, block_cells)

    plan = _plan(path)
    monkeypatch.setattr(CellSource, "blocks", damaged)
    [table] = shard_tables(JOB, plan.files[0], plan.shards[:1])
    with CarriedSources(JOB, plan.files) as here:
        source, rows = here.of(here.hold(table))
        with pytest.raises(InputError, match=r"^a chunk is damaged; write the file again\.$"):
            list(source.blocks(rows))
        good = rows[rows != 20]
        [block] = source.blocks(good)
        assert (np.diff(block.part.indptr) > 0).all()


def test_a_file_that_vanished_ends_the_reading(path: Path) -> None:
    plan = _plan(path)
    path.unlink()
    with pytest.raises(InputError, match=r"no file .*cells\.h5ad"):
        list(shard_tables(JOB, plan.files[0], plan.shards))


def test_a_shard_is_one_row_so_that_it_is_never_cut(path: Path) -> None:
    plan = _plan(path)
    for table in shard_tables(JOB, plan.files[0], plan.shards):
        assert (len(table), table.schema) == (1, carried.SCHEMA)
        again = pa.ipc.open_stream(_sent(table)).read_all()
        assert again.equals(table)


def _sent(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()
