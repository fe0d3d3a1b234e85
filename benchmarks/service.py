"""What the service gives its clients: ``python benchmarks/service.py [--seconds 120] [--clients 1 8 64 256]``.

The demo bundle over Zheng68k's cells. Everything of the server (its HTTP, its JSON and its model, with one thread) has
core 0 to itself, all clients have core 1, and the offline engine, with the same core, slots and cells, runs before and
after each number of clients. Clients send a cell at a time, whole or streamed, or 16 of them, on a connection that they
keep. What the event loop (HTTP, JSON, gene maps) takes of the core is told apart from what the model takes.
Besides: 100 clients that vanish in the middle of a stream, and memory before and after all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from hardware import hardware, written
from made_by import made_by
from results_folder import results_folder, shared_data
from service_clients import request_bytes

SLOTS, SERVER_CORE, CLIENT_CORE = 64, 0, 1
KINDS = ((1, False), (1, True), (16, False))  # cells of a request, and whether it is streamed
_CELLS = 4_096
_VANISHING, _BODIES = 100, 2_048
_QUEUE = 8_192  # room for 16 cells of each of 256 clients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--offline", action="store_true", help="used by this script itself")
    asked = parser.parse_args()
    if asked.offline:
        print(json.dumps(offline()))
        return
    path = results_folder() / "service.json"
    with tempfile.TemporaryDirectory() as folder:
        found = measured(asked, Path(folder))
    written(path, {"hardware": hardware(), "made_by": made_by(), **found})
    print(json.dumps(found, indent=1))


def measured(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ask the service with rising numbers of clients, the offline engine in turn with it."""
    bodies = {kind: folder / f"bodies-{kind[0]}-{kind[1]}.json" for kind in KINDS}
    for (cells, stream), path in bodies.items():
        path.write_text(json.dumps(requests(cells, stream)))
    alone, rows = [alone_rate()], []
    with serving() as (port, process):
        memory = [resident(process)]
        for clients in asked.clients:
            for cells, stream in KINDS:
                before = processor_seconds(process)
                row = load(port, bodies[cells, stream], clients, asked.seconds, stream)
                spent = {name: now - before[name] for name, now in processor_seconds(process).items()}
                each = {name: round(1e3 * one / max(1, row["cells"]), 2) for name, one in spent.items()}
                rows.append({"cells_per_request": cells, **row, "processor_ms_a_cell": each})
                memory.append(resident(process))
                print(rows[-1], memory[-1], flush=True)
            alone.append(alone_rate())
        vanished = asyncio.run(vanish(port, json.loads(bodies[1, True].read_text())))
        memory.append(resident(process))
        figures = metrics(port)
    middle = float(np.median([one["cells_per_second"] for one in alone]))

    def share(cells: int, stream: bool) -> float:
        mine = [row for row in rows if (row["cells_per_request"], row["streamed"]) == (cells, stream)]
        return round(max(row["cells_per_second"] for row in mine) / middle, 3)

    return {
        "slots": SLOTS,
        "threads": 1,
        "offline": alone,
        "rows": rows,
        "share_of_offline": {f"{cells} cells, {'streamed' if s else 'whole'}": share(cells, s) for cells, s in KINDS},
        "resident_mib": memory,
        "vanished": vanished,
        "server_errors": {k: v for k, v in figures.items() if k.startswith("cellscribe_errors_total")},
    }


def offline() -> dict[str, Any]:
    """Describe cells with the bare engine."""
    from cellscribe.engine.cells import open_cells
    from cellscribe.engine.model import Model, load

    model = load("demo", threads=1)
    assert isinstance(model, Model)
    with open_cells(zheng()) as source:
        rows = np.arange(source.n_cells)
        model.describe_cells(source, rows=rows[:SLOTS], batch_size=SLOTS)
    data = ad.read_h5ad(zheng())
    many = data[np.arange(_CELLS) % data.n_obs].copy()
    many.obs_names = [f"cell-{i}" for i in range(_CELLS)]
    with open_cells(many) as source:
        began = time.perf_counter()
        run = model.describe_cells(source, batch_size=SLOTS)
        seconds = time.perf_counter() - began
    tokens = sum(one.num_tokens for one in run.descriptions)
    return {"cells_per_second": round(_CELLS / seconds, 1), "tokens_per_second": round(tokens / seconds)}


def alone_rate() -> dict[str, Any]:
    """Run the bare engine on the server's core."""
    command = pinned(SERVER_CORE, sys.executable, __file__, "--offline")
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print("offline", found, flush=True)
    return found


def requests(cells: int, stream: bool) -> list[str]:
    """Return bodies of so many cells: their genes that are not zero; names differ, so that no text is like another."""
    data = ad.read_h5ad(zheng())
    counts, genes = data.X.tocsr(), data.var_names.tolist()
    each = []
    for i in range(data.n_obs):
        row = counts[i]
        each.append({genes[column]: float(value) for column, value in zip(row.indices, row.data, strict=True)})
    given = [{"id": f"cell-{i}", "genes": each[i % len(each)]} for i in range(_BODIES)]
    parts = (given[at : at + cells] for at in range(0, _BODIES, cells))
    return [json.dumps({"cells": part, "stream": stream}) for part in parts]


def load(port: int, bodies: Path, clients: int, seconds: float, stream: bool) -> dict[str, Any]:
    """Run clients on their core."""
    script = Path(__file__).with_name("service_clients.py")
    arguments = [str(script), str(port), str(bodies), str(clients), str(seconds), *(["stream"] if stream else [])]
    done = subprocess.run(pinned(CLIENT_CORE, sys.executable, *arguments), check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def vanish(port: int, bodies: list[str]) -> dict[str, Any]:
    """Begin streams and break them off; return how long slots stayed in use."""

    async def one(body: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes(body))
        await reader.readuntil(b"event: token")
        writer.transport.abort()

    await asyncio.gather(*(one(text.encode()) for text in bodies[:_VANISHING]))
    began = time.perf_counter()
    while True:
        figures = metrics(port)
        busy = figures["cellscribe_slots_in_use"] + figures["cellscribe_queue_cells"]
        if not busy or time.perf_counter() - began > 30:
            break
    return {
        "clients": _VANISHING,
        "slots_in_use_after": busy,
        "seconds_until_free": round(time.perf_counter() - began, 3),
        "cancelled": figures.get('cellscribe_cancelled_total{reason="client"}', 0.0),
    }


@contextmanager
def serving() -> Iterator[tuple[int, int]]:
    """Run the service on its core; yield its port and its process."""
    command = ["-m", "cellscribe", "serve", "demo", "--port", "0", "--slots", str(SLOTS), "--threads", "1"]
    command += ["--max-queue", str(_QUEUE)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        pinned(SERVER_CORE, sys.executable, *command), stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "http://" in line)
        yield int(line.split("http://", 1)[1].split()[0].rsplit(":", 1)[1]), process.pid
    finally:
        process.terminate()
        process.wait(60)


def metrics(port: int) -> dict[str, float]:
    """Return the service's figures."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line and line[0] != "#"}


def processor_seconds(pid: int) -> dict[str, float]:
    """Return what the event loop (the first thread) and all other threads have taken of a core so far."""
    ticks = {"event loop": 0, "other threads": 0}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        fields = (thread / "stat").read_text().rpartition(")")[2].split()
        ticks["event loop" if thread.name == str(pid) else "other threads"] += int(fields[11]) + int(fields[12])
    return {name: one / os.sysconf("SC_CLK_TCK") for name, one in ticks.items()}


def resident(pid: int) -> float:
    """Return the memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024, 1)


def pinned(core: int, *command: str) -> list[str]:
    """Return a command that has one core."""
    return ["taskset", "-c", str(core), *command]


def zheng() -> Path:
    """Return the file of cells."""
    return shared_data() / "zheng68k.h5ad"


if __name__ == "__main__":
    main()
