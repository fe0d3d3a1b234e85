from __future__ import annotations

import builtins
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pyarrow as pa
import pytest

from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.inputs import find_inputs
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.manifest import ShardRecord
from cellscribe.engine.atlas.on_ray import run_on_ray
from cellscribe.engine.atlas.plan import look_through
from cellscribe.engine.atlas.pool import Work, run_here
from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.packaged import packaged_cells


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Head of a cluster of two machines with a core each."""
    pytest.importorskip("ray.data", reason="the ray extra is not installed")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    of_a_machine = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=of_a_machine)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def _work(out: Path, inputs: list[Path], job: AtlasJob, address: str | None = None) -> Work:
    files = look_through(find_inputs([str(one) for one in inputs]), job).files
    folder = AtlasFolder(out)
    folder.make()
    return Work(job, Running(workers=2, threads=1, ray_address=address), files, folder, "a run")


def _nothing(*_: object) -> None:
    pass


@pytest.mark.slow
def test_shards_are_those_of_this_machine_although_a_worker_is_killed(address: str, tmp_path: Path) -> None:
    cells = ad.read_h5ad(packaged_cells())
    cells.obs_names = [f"more-{name}" for name in cells.obs_names]
    cells.X.data[cells.X.indptr[3]] = np.nan  # noted, not fatal
    cells[:50].copy().write_h5ad(tmp_path / "more.h5ad")
    job = AtlasJob("describe", shard_cells=20, limit=110, max_new_tokens=32)
    inputs = [tmp_path / "more.h5ad", packaged_cells()]
    work = _work(tmp_path / "ray", inputs, job, address)
    shards = look_through(find_inputs([str(one) for one in inputs]), job).shards
    records: list[ShardRecord] = []
    killed: list[int] = []

    def kill_once(worker: str, figures: dict[str, Any]) -> None:
        if not killed:
            killed.append(int(worker.rpartition("-")[2]))
            os.kill(killed[0], signal.SIGKILL)

    run_on_ray(work, shards, records.append, kill_once)
    here = replace(work, folder=AtlasFolder(tmp_path / "here"))
    here.folder.make()
    run_here(here, shards, _nothing, _nothing)

    assert killed
    assert sorted(one.number for one in records) == list(range(6))
    assert sum(one.n_failed for one in records) == 1
    assert len({one.worker for one in records}) >= 2
    for shard in shards:
        _assert_same(work.folder.read_shard(shard), here.folder.read_shard(shard))
    assert not [one for one in (tmp_path / "ray" / "shards").iterdir() if one.suffix != ".parquet"]


def _assert_same(mine: pa.Table, other: pa.Table) -> None:
    assert mine.schema.equals(other.schema, check_metadata=True)
    for name in mine.column_names:
        ours, theirs = mine[name].to_pylist(), other[name].to_pylist()
        if name in ("embedding", "top_gene_weights", "mean_logprob"):  # of batches that were put together otherwise
            assert [one is None for one in ours] == [one is None for one in theirs]
            flat = [np.hstack([one for one in column if one is not None]) for column in (ours, theirs)]
            np.testing.assert_allclose(*flat, rtol=1e-4, atol=1e-5)
        else:
            assert ours == theirs, name


@pytest.mark.slow
def test_what_a_worker_raises_is_raised_as_one_sentence(address: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone.h5ad"
    gone.write_bytes(packaged_cells().read_bytes())
    job = AtlasJob("embed", shard_cells=70)
    work = _work(tmp_path / "out", [gone], job, address)
    gone.unlink()
    with pytest.raises(InputError, match=r"no file .*gone\.h5ad"):
        run_on_ray(work, look_through(find_inputs([str(packaged_cells())]), job).shards, _nothing, _nothing)


def test_a_head_that_does_not_answer_is_told_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="the ray extra is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    job = AtlasJob("embed", limit=4)
    work = _work(tmp_path, [packaged_cells()], job, f"127.0.0.1:{port}")
    with pytest.raises(UsageError, match=rf"no Ray cluster can be joined at 127\.0\.0\.1:{port} \(.*refused\)"):
        run_on_ray(work, look_through(find_inputs([str(packaged_cells())]), job).shards, _nothing, _nothing)


def test_without_ray_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_ray(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "ray":
            raise ImportError(name=name)
        return real(name, *rest)

    job = AtlasJob("embed", limit=4)
    work = _work(tmp_path, [packaged_cells()], job)
    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(UsageError, match=r"pip install 'cellscribe\[ray\]'"):
        run_on_ray(work, look_through(find_inputs([str(packaged_cells())]), job).shards, _nothing, _nothing)
