"""How `cellscribe atlas --engine ray` grows with workers: ``python benchmarks/atlas_ray.py FOLDER [--repeats 3]``.

As many machines as workers are simulated on this one, with a core each: a cluster of N machines, with all that Ray
itself runs, keeps to N cores. The runs take turns. The rate is that of the time in which all workers are at work, from
the moment when the last of them has written its first shard until the first of them has written its last; the rate of
the whole run, with the start of Ray and of the models, is said beside it.

FOLDER keeps the cells, those of ``atlas.py``. Writes benchmarks/results/atlas_ray.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from atlas import noisy_file
from hardware import hardware, written
from made_by import made_by
from results_folder import results_folder

from cellscribe.engine.atlas.folder import AtlasFolder, ShardRecord
from cellscribe.engine.atlas.inputs import find_inputs
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.on_ray import run_on_ray
from cellscribe.engine.atlas.plan import look_through
from cellscribe.engine.atlas.pool import Work
from cellscribe.engine.bench.clock import in_turn

_SIZES = {"embed": (20_000, 512), "describe": (4_096, 128)}  # cells, and cells of a shard
_WORKERS = (1, 2)


@dataclass(frozen=True)
class Rate:
    """One run: cells a second while all workers were at work, and over all of it."""

    workers: int
    cells: int
    seconds: float
    cells_per_second: float
    cells_per_second_whole: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("TASK", "WORKERS"), help="a single run, told as JSON")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(asdict(simulated(asked.folder, asked.one[0], int(asked.one[1])))), flush=True)
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    found = {task: compared(asked.folder, task, asked.repeats) for task in _SIZES}
    written(results_folder() / "atlas_ray.json", {"hardware": hardware(), **found, "made_by": made_by()})
    print(json.dumps(found, indent=1))


def compared(folder: Path, task: str, repeats: int) -> dict[str, Any]:
    """Run one and two workers in turn."""
    noisy_file(folder, _SIZES[task][0])
    runs = list[dict[str, Any]]()
    for number in range(repeats):
        for i in in_turn(len(_WORKERS), number):
            runs.append(one_run(folder, task, _WORKERS[i]))
            print(task, runs[-1], flush=True)
    return {"runs": runs} | {
        f"two_over_one, {name}": round(middle(runs, 2, key) / middle(runs, 1, key), 3)
        for name, key in (("all at work", "cells_per_second"), ("whole runs", "cells_per_second_whole"))
    }


def middle(runs: list[dict[str, Any]], workers: int, key: str) -> float:
    return float(np.median([one[key] for one in runs if one["workers"] == workers]))


def one_run(folder: Path, task: str, workers: int) -> dict[str, Any]:
    """Run in a process of its own, which keeps to as many cores as there are machines."""
    cores = sorted(os.sched_getaffinity(0))[:workers]
    command = [sys.executable, __file__, str(folder), "--one", task, str(workers)]
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, cores)), *command], check=True, stdout=subprocess.PIPE, text=True
    )
    told: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return told


def simulated(folder: Path, task: str, workers: int) -> Rate:
    """Start a cluster of machines of one core, and run on it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    machine = {"num_cpus": 1, "object_store_memory": 300 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False})
    try:
        for _ in range(workers - 1):
            cluster.add_node(**machine)
        return run(noisy_file(folder, _SIZES[task][0]), task, workers, str(cluster.address))
    finally:
        cluster.shutdown()


def run(cells: Path, task: str, workers: int, address: str) -> Rate:
    job = AtlasJob(task, shard_cells=_SIZES[task][1])
    plan = look_through(find_inputs([str(cells)]), job)
    began, seen = time.perf_counter(), list[tuple[float, ShardRecord]]()
    with tempfile.TemporaryDirectory() as out:
        folder = AtlasFolder(Path(out))
        folder.make()
        work = Work(job, Running(workers=workers, threads=1, ray_address=address), plan.files, folder, "bench")
        run_on_ray(work, plan.shards, lambda one: seen.append((time.perf_counter() - began, one)), lambda *_: None)
    seconds = time.perf_counter() - began
    times = {one.worker: [at for at, other in seen if other.worker == one.worker] for _, one in seen}
    start, stop = max(min(one) for one in times.values()), min(max(one) for one in times.values())
    steady = sum(one.n_cells for at, one in seen if start < at <= stop) / (stop - start)
    return Rate(len(times), plan.n_cells, round(seconds, 2), round(steady, 1), round(plan.n_cells / seconds, 1))


if __name__ == "__main__":
    main()
