from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cellscribe.engine.atlas.carried import shard_tables
from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.inputs import find_inputs
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.plan import Plan, look_through
from cellscribe.engine.atlas.pool import Work, run_here
from cellscribe.engine.atlas.ray_worker import MAX_TRIES, ShardWorker
from cellscribe.engine.errors import BackendError, BundleError
from cellscribe.engine.packaged import packaged_cells

JOB = AtlasJob("describe", shard_cells=7, limit=25, max_new_tokens=32)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return look_through(find_inputs([str(packaged_cells())]), JOB)


def _work(place: Path, plan: Plan, job: AtlasJob = JOB) -> Work:
    folder = AtlasFolder(place)
    folder.make()
    return Work(job, Running(threads=1), plan.files, folder, "a run")


def _tables(plan: Plan) -> list[pa.Table]:
    return list(shard_tables(JOB, plan.files[0], plan.shards))


def _told(answer: pa.Table) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(answer["told"][0].as_py())
    return told


def test_a_worker_with_two_shards_at_hand_makes_those_of_this_machine(plan: Plan, tmp_path: Path) -> None:
    work, here = _work(tmp_path / "worker", plan), _work(tmp_path / "here", plan)
    worker = ShardWorker(work)
    with ThreadPoolExecutor(2) as calls:
        told = [_told(one) for one in calls.map(worker, _tables(plan))]
    run_here(here, plan.shards, lambda _: None, lambda *_: None)
    assert [one["record"]["number"] for one in told] == [0, 1, 2, 3]
    assert max(one["figures"]["cells"] for one in told) == 25
    for shard in plan.shards:
        ours, theirs = (one.folder.read_shard(shard) for one in (work, here))
        assert ours.schema.equals(theirs.schema, check_metadata=True)
        for name in ("row", "cell_id", "description", "status", "top_genes"):
            assert ours[name].equals(theirs[name])
    assert len(list((tmp_path / "worker" / "shards").iterdir())) == 4  # nothing but shards is left


def test_a_shard_that_is_there_is_not_made_again(plan: Plan, tmp_path: Path) -> None:
    work, tables = _work(tmp_path, plan), _tables(plan)
    first = _told(ShardWorker(work)(tables[0]))
    before = work.folder.shard_path(plan.shards[0]).stat().st_mtime_ns
    again = ShardWorker(work)(tables[0])
    assert work.folder.shard_path(plan.shards[0]).stat().st_mtime_ns == before
    assert _told(again)["record"]["sha256"] == first["record"]["sha256"]
    assert _told(again)["figures"]["cells"] == 0


def test_a_shard_that_ends_its_workers_is_given_up(plan: Plan, tmp_path: Path) -> None:
    work = _work(tmp_path, plan)
    for _ in range(MAX_TRIES):
        work.folder.begin(plan.shards[0])  # and no more was heard of them
    with pytest.raises(BackendError, match=r"^shard 0 ended its worker 3 times; .*--batch-size.* resume\.$"):
        ShardWorker(work)(_tables(plan)[0])
    work.folder.clean()  # as a resumed run does
    assert work.folder.begin(plan.shards[0]) == 1


def test_what_goes_wrong_is_raised_where_the_shard_was_given(plan: Plan, tmp_path: Path) -> None:
    job = AtlasJob("describe", bundle=str(tmp_path / "no-bundle"))
    with pytest.raises(BundleError, match="no-bundle"):
        ShardWorker(_work(tmp_path / "out", plan, job))(_tables(plan)[0])
