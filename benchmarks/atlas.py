"""What an atlas costs: ``python benchmarks/atlas.py FOLDER [--only embed|describe|workers|memory|padding|kill]``.

Zheng68k's cells over and over, each copy with noise of its own (:mod:`atlas_cells`), written into FOLDER where they are
missing, with the demo bundle:

- embed: 1,000,000 cells read and embedded from end to end, beside the encoder alone on the same cores (token batches
  that lie in memory, before and after), peak memory, the share of every stage, and what a cell costs among 10,000;
- describe: 100,000 cells, and `atlas` beside a bare loop over the same cells, in turn;
- workers: two processes with a core each beside one with a core (``atlas_ray.py`` does the same with Ray);
- memory: what 200,000 cells take with two workers, everything counted that any of their processes holds;
- padding: the places of the encoder that hold no gene, where bundles feed as many genes as a cell expresses;
- kill: SIGKILL at 20 random moments, each time gone on with; the result beside that of an uninterrupted run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from atlas_cells import write_noisy
from hardware import hardware, written
from made_by import made_by
from results_folder import results_folder, shared_data

from cellscribe.engine.atlas.batches import token_batches
from cellscribe.engine.atlas.meter import Meter
from cellscribe.engine.bench.clock import in_turn
from cellscribe.engine.cells import CellInput, CellTokenizer, GeneVocabulary, open_cells
from cellscribe.engine.model import Model, load

CELLS = 1_000_000
QUESTIONS = ("embed", "describe", "workers", "memory", "padding", "kill")
_ENCODER_CELLS, _BATCH = 20_000, 32
_RAGGED = ("zheng68k", "he2020liver", "scp1884")
_SAMPLE_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=QUESTIONS)
    parser.add_argument("--cells", type=int, default=CELLS, help="that are embedded; other numbers are kept beside")
    parser.add_argument("--described", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    path = results_folder() / "atlas.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if found.get("hardware") not in (None, hardware()):
        found = {}
    for name in QUESTIONS if asked.only is None else (asked.only,):
        print(f"{name} ...", flush=True)
        key = f"{name}, {asked.cells:,} cells" if name == "embed" and asked.cells != CELLS else name
        found[key] = {**_ANSWERS[name](asked), "made_by": made_by()}
        found["hardware"] = hardware()
        written(path, found)
        print(json.dumps(found[key], indent=1), flush=True)


def embed(asked: argparse.Namespace) -> dict[str, Any]:
    """Embed all cells, the encoder alone before and after."""
    cells, few = noisy_file(asked.folder, asked.cells), noisy_file(asked.folder, 10_000)
    small = atlas(few, asked.folder / "few", "--task", "embed")
    costs = [stage_cost(small)]
    before = encoder_alone(cells)
    told = atlas(cells, asked.folder / "embedded", "--task", "embed")
    after = encoder_alone(cells)
    costs.append(stage_cost(atlas(few, asked.folder / "few", "--task", "embed")))
    alone = (before + after) / 2
    shares = told["stage_utilisation"]
    return {
        "cells": asked.cells,
        "file_gigabytes": round(cells.stat().st_size / 1e9, 2),
        "cells_per_second": told["whole_rate"],
        "seconds_of_all": told["seconds_in_all"],
        "encoder_alone_cells_per_second": [round(before), round(after)],
        "share_of_encoder_alone": round(told["whole_rate"] / alone, 3),
        "preprocessing_share": round(shares["read"] + shares["tokenise"], 4),
        "stage_shares": shares,
        "peak_memory_gib": told["peak_memory_gib"],
        "peak_memory_gib_of_10000": small["peak_memory_gib"],
        "stage_microseconds_a_cell": {
            name: round(1e6 * seconds / asked.cells, 1)
            for name, seconds in told["stage_seconds"].items()
            if seconds is not None
        },
        "microseconds_a_cell": {"of all": round(stage_cost(told), 1), "of 10,000": [round(one, 1) for one in costs]},
        "cost_beside_10000": round(2 * stage_cost(told) / sum(costs), 3),
    }


def describe(asked: argparse.Namespace) -> dict[str, Any]:
    """Describe many cells, and fewer beside a bare loop."""
    cells = noisy_file(asked.folder, asked.described)
    told = atlas(cells, asked.folder / "described", "--task", "describe")
    few = noisy_file(asked.folder, 4096)
    bare, mine = [], []
    for number in range(asked.rounds):
        for i in in_turn(2, number):
            if i:
                mine.append(atlas(few, asked.folder / "few", "--task", "describe")["elapsed_seconds"])
            else:
                bare.append(bare_loop(few))
    return {
        "cells": asked.described,
        "cells_per_second": told["whole_rate"],
        "output_bytes_a_cell": round(
            sum(one.stat().st_size for one in (asked.folder / "described" / "shards").iterdir()) / asked.described
        ),
        "tokens_per_second": round(told["tokens"] / told["elapsed_seconds"]),
        "idle_slot_share": told["idle_slot_share"],
        "stage_shares": told["stage_utilisation"],
        "peak_memory_gib": told["peak_memory_gib"],
        "seconds_of_4096_cells": {"bare loop": bare, "atlas": mine},
        "overhead": round(float(np.median(mine) / np.median(bare)) - 1.0, 4),
    }


def workers(asked: argparse.Namespace) -> dict[str, Any]:
    """Two workers beside one, each with a core."""
    cells = noisy_file(asked.folder, 20_000)
    rates: dict[str, list[float]] = {}
    for number in range(asked.rounds):
        for count in (one + 1 for one in in_turn(2, number)):
            options = ["--workers", str(count), "--threads", "1", "--shard-cells", "1024"]
            core = ["taskset", "-c", "0"] if count == 1 else []
            told = atlas(cells, asked.folder / "workers", "--task", "embed", *options, before=core)
            rates.setdefault(f"local, {count}", []).append(told["whole_rate"])
    middle = {name: float(np.median(one)) for name, one in rates.items()}
    return {"cells_per_second": rates, "two_over_one": round(middle["local, 2"] / middle["local, 1"], 3)}


def memory(asked: argparse.Namespace) -> dict[str, Any]:
    """What two workers hold at most; pages that they share are counted for each."""
    cells = noisy_file(asked.folder, 200_000)
    told = atlas(cells, asked.folder / "workers", "--task", "embed", "--workers", "2", "--threads", "1")
    return {"cells": told["cells_done"], "workers": 2, "peak_memory_gib": told["peak_memory_gib"]}


def padding(asked: argparse.Namespace) -> dict[str, Any]:
    """The share of places without a gene where a cell is fed all genes that it expresses, sorted as in a run or not."""
    return {name: padding_of(shared_data() / f"{name}.h5ad") for name in _RAGGED}


def padding_of(path: Path) -> dict[str, float]:
    cells = ad.read_h5ad(path)
    vocabulary = GeneVocabulary(("<pad>", *map(str, cells.var_names), "<cls>"), input_genes=tuple(cells.var_names))
    spec = CellInput("ragged", "all", cells.n_vars + 1, cls_value=-2.0)
    tokenizer, rows = CellTokenizer(spec, vocabulary, open_cells(cells)), np.arange(cells.n_obs)
    sorted_meter, plain = Meter(), [one.mask for one in tokenizer.batches(rows, _BATCH)]
    for _ in token_batches(tokenizer, tokenizer.source, rows, _BATCH, sorted_meter):
        pass
    return {
        "as in a run": round(1 - sorted_meter.real_places / sorted_meter.places, 4),
        "in the order of the file": round(1 - sum(m.sum() for m in plain) / sum(m.size for m in plain), 4),
    }


def kill(asked: argparse.Namespace) -> dict[str, Any]:
    """Kill runs again and again, and compare what comes of them with uninterrupted ones."""
    return {"embed": killed(asked, "embed", 40_000, 512), "describe": killed(asked, "describe", 8_192, 128)}


def killed(asked: argparse.Namespace, task: str, count: int, shard_cells: int) -> dict[str, Any]:
    cells = noisy_file(asked.folder, count)
    options = ["--task", task, "--shard-cells", str(shard_cells)]
    whole, cut = asked.folder / "whole", asked.folder / "cut"
    seconds = atlas(cells, whole, *options)["seconds_in_all"]
    shutil.rmtree(cut, ignore_errors=True)
    draw, moments = random.Random(0), []
    while len(moments) < asked.kills:
        process = subprocess.Popen(command(cells, cut, *options, "--resume"), start_new_session=True)
        moment = draw.uniform(0.5, max(2.0, 2.0 * seconds / asked.kills + 2.0))
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            moments.append(round(moment, 2))
            continue
        assert len(moments) > asked.kills // 2, "the run ended too early; take more cells"
        break
    subprocess.run(command(cells, cut, *options, "--resume"), check=True)
    same = table(cut).equals(table(whole))
    for name, out in (("whole", whole), ("cut", cut)):
        subprocess.run([sys.executable, "-m", "cellscribe", "merge", str(out), "--into", str(cells), "-o",
                        str(asked.folder / f"{name}.h5ad"), "-q"], check=True)  # fmt: skip
    one, other = (ad.read_h5ad(asked.folder / f"{name}.h5ad") for name in ("whole", "cut"))
    merged = one.obs.equals(other.obs) and all(np.array_equal(one.obsm[name], other.obsm[name]) for name in one.obsm)
    assert same, "the killed run has another result"
    assert merged, "the killed run merges into another file"
    left = [path.name for path in cut.rglob(".*.part")]
    return {"kills": len(moments), "moments_seconds": moments, "equal": same, "merged_equal": merged, "left": left}


def command(cells: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "cellscribe", "atlas", str(cells), "-o", str(out), "-q", *options]


def atlas(cells: Path, out: Path, *options: str, before: list[str] | None = None) -> dict[str, Any]:
    """Run an atlas anew; what it tells, with its rate from the first cell to the last, and its memory at most."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    process = subprocess.Popen([*(before or []), *command(cells, out, *options)])
    most = 0
    while process.poll() is None:
        most = max(most, resident(process.pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SAMPLE_SECONDS)
    assert process.returncode == 0, f"atlas ended with {process.returncode}"
    told: dict[str, Any] = json.loads((out / "progress.json").read_text())
    return {
        **told,
        "whole_rate": round(told["cells_done"] / told["elapsed_seconds"], 1),
        "peak_memory_gib": round(most / 2**30, 2),
        "seconds_in_all": round(time.perf_counter() - started, 1),
    }


def stage_cost(told: dict[str, Any]) -> float:
    """Microseconds of all stages for a cell, without what is done once."""
    seconds = sum(one for one in told["stage_seconds"].values() if one is not None)
    return 1e6 * float(seconds) / float(told["cells_done"])


def resident(pid: int) -> int:
    """Bytes that a process and its children hold; what they share is counted for each (RSS, which costs no walk)."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except OSError:
            continue
        waiting += [int(child) for child in children]
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


def encoder_alone(cells: Path) -> float:
    """Cells a second of the encoder on token batches that lie in memory."""
    model = load("demo")
    assert isinstance(model, Model)
    with open_cells(cells) as source:
        rows = np.arange(_ENCODER_CELLS)
        batches = list(model.tokenizer(source).batches(rows, _BATCH))
    for batch in batches[:8]:
        model.backend.encode(batch)
    started = time.perf_counter()
    for batch in batches:
        model.backend.encode(batch)
    return _ENCODER_CELLS / (time.perf_counter() - started)


def bare_loop(cells: Path) -> float:
    """Seconds that `describe_cells` takes, without shards, manifest and figures."""
    model = load("demo")
    assert isinstance(model, Model)
    with open_cells(cells) as source:
        model.tokenizer(source)
        started = time.perf_counter()
        model.describe_cells(source, rows=np.arange(source.n_cells))
        return round(time.perf_counter() - started, 2)


def noisy_file(folder: Path, count: int) -> Path:
    path = folder / f"noisy-{count}.h5ad"
    if not path.is_file():
        write_noisy(ad.read_h5ad(shared_data() / "zheng68k.h5ad"), path, count)
    return path


def table(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(one) for one in sorted((out / "shards").glob("*.parquet")))


_ANSWERS = {
    "embed": embed, "describe": describe, "workers": workers, "memory": memory, "padding": padding, "kill": kill,
}  # fmt: skip

if __name__ == "__main__":
    main()
