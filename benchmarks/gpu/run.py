"""Runs all parts within a time, each group in a process of its own; benchmarks/gpu.sh calls it."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu.parts import ON_REQUEST, PARTS
from gpu.report import write_report
from gpu.results import CUT, FAILED, RUNNING, SKIPPED, Store
from results_folder import PUBLISHED, results_folder

_LEAST_SECONDS = 8.0  # below this a group is not begun
_LAST_SECONDS = 6.0  # kept for the report


@dataclass(frozen=True)
class Group:
    """Parts that share a process, and with it torch, the weights and the graphs; `seconds` at most."""

    parts: tuple[str, ...]
    seconds: float
    needs_bundle: bool = False


# By importance, but that what needs no bundle comes while it is exported.
GROUPS = (
    Group(("machine",), 60),
    Group(("build",), 120),
    Group(("tests",), 180),
    Group(("kernels",), 120),
    Group(("slots", "encoder"), 150, needs_bundle=True),
    Group(("parity", "torch"), 150, needs_bundle=True),
    Group(("materialised", "int8", "profile"), 90, needs_bundle=True),
    Group(("onnxruntime-cuda",), 90, needs_bundle=True),
    Group(("transformers",), 60, needs_bundle=True),
    Group(("torch-compiled",), 90, needs_bundle=True),
    Group(("sweeps",), 30),
    Group(("tensorrt-rtx",), 30),
    Group(("transformers-static",), 120, needs_bundle=True),
    Group(("sanitizer",), 540),
)


class Run:
    """One run with its clock; `begin` starts it."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked, self.work = asked, asked.work.resolve()
        self.deadline = time.monotonic() + 60 * asked.minutes
        self.store = Store.of(self.work, asked.results / f"gpu_{asked.name}.json")
        self.log = self.work / "bundle.log"
        self.wanted = set(asked.parts.split(",")) if asked.parts else set(PARTS) - ON_REQUEST
        self.running: list[subprocess.Popen[bytes]] = []

    @property
    def left(self) -> float:
        """Seconds that may still be used."""
        return float(self.deadline - time.monotonic() - _LAST_SECONDS)

    def go(self) -> int:
        """Run everything; returns how many parts failed."""
        kind = "EMULATED ON THE CPU at tiny sizes: shows that the script works, measures nothing"
        self.store.begin({"name": self.asked.name, "is_emulated": self.asked.emulate,
                          "kind": kind if self.asked.emulate else "measured"})  # fmt: skip
        try:
            self._all()
        finally:
            for process in self.running:
                _stop(process)
        whole = self.store.gather()
        write_report(whole, self.store.target.with_suffix(".md"))
        print(f"\n{self.store.target}\n{self.store.target.with_suffix('.md')}", flush=True)
        return sum(part["status"] in (FAILED, CUT) for part in whole["parts"].values())

    def _all(self) -> None:
        """Run the groups in their order; those that need the bundle wait for it while others can run."""
        waiting = [group for group in GROUPS if self.wanted.intersection(group.parts)]
        exporting = self._start_bundle()
        while waiting:
            ready = exporting is None or exporting.poll() is not None
            group = next((one for one in waiting if ready or not one.needs_bundle), None)
            if group is None or (ready and exporting is not None):
                self._wait(exporting)
                exporting = None
                continue
            waiting.remove(group)
            self._run(tuple(part for part in group.parts if part in self.wanted), group.seconds)
        if exporting is not None:
            self._wait(exporting)

    def _start_bundle(self) -> subprocess.Popen[bytes] | None:
        needed = any(g.needs_bundle and self.wanted.intersection(g.parts) for g in GROUPS)
        if "bundle" not in self.wanted and not needed:
            return None
        print(f"[bundle] in the background, see {self.log}", flush=True)
        with self.log.open("wb") as log:
            return self._start(("bundle",), stdout=log, stderr=subprocess.STDOUT)

    def _start(self, parts: tuple[str, ...], **options: Any) -> subprocess.Popen[bytes]:
        """Start parts in a session of their own, so that they can be ended with all they started."""
        process = subprocess.Popen(self._command(parts), start_new_session=True, **options)
        self.running.append(process)
        return process

    def _wait(self, process: subprocess.Popen[bytes] | None) -> None:
        """Wait for the bundle as long as there is time."""
        assert process is not None
        self._end(("bundle",), process, max(self.left, 1.0))
        tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
        print("\n".join(tail), flush=True)

    def _run(self, parts: tuple[str, ...], seconds: float) -> None:
        limit = min(seconds, self.left) if not self.asked.emulate else self.left
        if limit < _LEAST_SECONDS:
            for part in parts:
                print(f"[{part}] skipped: no time is left", flush=True)
                self.store.write(part, {"status": SKIPPED, "why": "no time was left for it", "rows": []})
            return
        print(f"\n== {', '.join(parts)} (at most {limit:.0f} s, {self.left:.0f} s left)", flush=True)
        self._end(parts, self._start(parts), limit)

    def _end(self, parts: tuple[str, ...], process: subprocess.Popen[bytes], limit: float) -> None:
        """Wait for a process; say of every part that did not come to its end why. What it wrote stays."""
        is_late = False
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            is_late = True
            _stop(process)
        self.running.remove(process)
        for part in parts:
            found = self.store.read(part)
            if found.get("status", RUNNING) == RUNNING:
                why = f"cut off after {limit:.0f} s" if is_late else f"its process ended with code {process.returncode}"
                self.store.write(part, {"rows": [], **found, "status": CUT, "why": why})
                print(f"[{part}] {why}", flush=True)
            elif found["status"] == FAILED:
                print(f"[{part}] failed: {found.get('why')}", flush=True)

    def _command(self, parts: tuple[str, ...]) -> list[str]:
        asked = self.asked
        command = [sys.executable, "-u", "-m", "gpu.parts", "--work", str(self.work), "--target",
                   str(self.store.target)]  # fmt: skip
        command += ["--emulate"] if asked.emulate else []
        command += ["--library", str(asked.library.resolve())] if asked.library else []
        command += ["--bundle", str(asked.bundle.resolve())] if asked.bundle else []
        return [*command, *parts]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh")
    parser.add_argument("--name", help="results go to gpu_NAME.json and gpu_NAME.md; the GPU's name if not given")
    parser.add_argument("--minutes", type=float, default=10.0, help="all of it ends within this time")
    parser.add_argument("--results", type=Path, default=results_folder(), help="folder of the results")
    parser.add_argument("--work", type=Path, required=True, help="folder for library, bundle and logs")
    parser.add_argument("--library", type=Path, help="a library of kernels instead of building one")
    parser.add_argument("--bundle", type=Path, help="a bundle of random weights, seed 0, instead of exporting one")
    parser.add_argument("--parts", default="", help=f"some parts only, with commas: {', '.join(PARTS)}")
    parser.add_argument("--emulate", action="store_true", help="tiny sizes on the CPU: shows that the script works")
    asked = parser.parse_args()
    if set(filter(None, asked.parts.split(","))) - set(PARTS):
        parser.error(f"--parts takes {', '.join(PARTS)}")
    if asked.emulate and asked.results.resolve() == PUBLISHED:
        parser.error("an emulated run measures nothing: give --results a folder outside the repository's results")
    asked.name = asked.name or ("emulated" if asked.emulate else gpu_name())
    return asked


def gpu_name() -> str:
    """Return the GPU's name for a file."""
    from gpu.machine import first_line

    name = first_line("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if not name:
        sys.exit("nvidia-smi finds no GPU; run this on a machine with one, or with --emulate.")
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def main() -> None:
    """Run; the exit code is 1 where a part failed."""
    asked = arguments()
    asked.work.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended too
    failed = Run(asked).go()
    print(f"{failed} parts failed" if failed else "all parts that ran are well", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
