"""All benchmarks for a machine without a GPU, one after the other: ``python benchmarks/suite.py [--only NAME ...]``.

Results go to build/benchmarks, or to another folder (``--out``); benchmarks/results, which the README quotes, is left
alone. A second run in the same folder goes on where the first one stopped; ``--again`` starts anew. A stage that fails
or lacks what it needs is said at the end, and the others run. Peers get environments of their own, bundles of a random
lingocell-1.1b are made, and all of it is kept in the user's cache: some 40 GB, and hours the first time. Nothing else
should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import IO, Any

from hardware import hardware, written
from peers.environments import default_folder
from results_folder import VARIABLE
from stages import HERE, Command, Stage, stages

OUT = HERE.parent / "build" / "benchmarks"
RECORD = "suite.json"
BENCH_FILES = ("bench.json", "bench.md", "bench.png")


class StageError(Exception):
    """A stage cannot be run or failed; one sentence."""


@dataclass
class Suite:
    """Stages that write into a folder; `failed` and `skipped` hold a sentence for each that has no result."""

    folder: Path
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def finished(self) -> dict[str, Any]:
        """Return which stages are finished, with their dates; StageError where another machine ran them."""
        path = self.folder / RECORD
        if not path.is_file():
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["hardware"] != hardware():
            raise StageError(f"{self.folder} has results of another machine; name another folder with --out.")
        return dict(found["finished"])

    def run(self, chosen: Mapping[str, Stage], *, again: bool = False) -> None:
        """Run stages that are not finished, or all of them anew."""
        for name, stage in chosen.items():
            done = self.finished()
            if again:
                self._forget(stage)
                done.pop(name, None)
                self._record(done)
            if name in done:
                print(f"--- {name}: measured {done[name]}; --again measures it anew", flush=True)
                continue
            print(f"--- {name}", flush=True)
            lacking = [str(path) for path in stage.inputs if not path.exists()]
            if lacking:
                self.skipped[name] = f"there is no {lacking[0]}; CELLSCRIBE_SHARED names the folder of data/."
                continue
            try:
                for command in (*(one for path, one in stage.prepares if not path.is_dir()), *stage.commands):
                    self._do(command, stage)
            except StageError as error:
                self.failed[name] = str(error)
                continue
            self._record({**done, name: datetime.now(UTC).isoformat(timespec="seconds")})

    def report(self) -> list[str]:
        """Return a line for every stage that has no result."""
        skipped = [f"{name} was left out: {why}" for name, why in self.skipped.items()]
        return [*skipped, *(f"{name} failed: {why}" for name, why in self.failed.items())]

    def _do(self, command: Command, stage: Stage) -> None:
        """Run a command; what it says last on stderr is why it failed."""
        started = any((self.folder / one / BENCH_FILES[0]).is_file() for one in stage.makes)
        resumed = (*command, "--resume") if started and "bench" in command else command
        environment = {**os.environ, VARIABLE: str(self.folder)}
        said: list[str] = []
        with subprocess.Popen(resumed, cwd=HERE, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            listener = Thread(target=_pass_on, args=(process.stderr, said))
            listener.start()
            code = process.wait()
            listener.join()
        if code:
            raise StageError(said[-1] if said else f"{Path(command[1]).name} ended with code {code} and said nothing.")

    def _forget(self, stage: Stage) -> None:
        """Delete what a stage made before."""
        for one in stage.makes:
            path = self.folder / one
            for file in [path / name for name in BENCH_FILES] if path.is_dir() else [path]:
                file.unlink(missing_ok=True)

    def _record(self, done: Mapping[str, Any]) -> None:
        written(self.folder / RECORD, {"hardware": hardware(), "finished": dict(done)})


def _pass_on(stream: IO[str], said: list[str]) -> None:
    """Repeat on stderr what a process says, and keep its last line."""
    for line in stream:
        sys.stderr.write(line)
        sys.stderr.flush()
        if line.strip():
            said[:] = [line.strip()]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", help="some of the stages")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the results")
    parser.add_argument("--bundles", type=Path, default=default_folder() / "bundles")
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    asked = parser.parse_args(arguments)
    out, bundles = (path.expanduser().resolve() for path in (asked.out, asked.bundles))  # the stages run elsewhere
    known = stages(out, bundles)
    unknown = set(asked.only or ()) - set(known)
    if unknown:
        parser.error(f"no stage is called {min(unknown)}; choose from {', '.join(known)}.")
    for folder in (out, bundles):
        folder.mkdir(parents=True, exist_ok=True)
    suite = Suite(out)
    try:
        suite.run({name: known[name] for name in asked.only or known}, again=asked.again)
    except StageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("stopped; the same command without --again goes on.", file=sys.stderr)
        return 130
    print("\n".join([f"results are in {out}", *suite.report()]), flush=True)
    return 1 if suite.failed else 0


if __name__ == "__main__":
    sys.exit(main())
