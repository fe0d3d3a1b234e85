"""The client's side: one engine in a process of its own, and several asked in turn."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from cellscribe.engine.bench.clock import in_turn

BENCHMARKS = Path(__file__).resolve().parents[1]
SETTLE_SECONDS = 0.3  # thread pools spin for up to 0.2 s after their last work; the next worker starts after that
_TAIL_LINES = 8
_CLOSE_SECONDS = 10.0


class WorkerError(Exception):
    """A worker gave an error, died, fell silent or said something that is no answer; one sentence."""


class Worker:
    """An engine in a process of its own.

    Parameters
    ----------
    name
        What it is called in samples and errors.
    python
        Interpreter of the environment that it runs in.
    module
        Module to run (``peers.causal_torch``), found from the folder `benchmarks`; or the path of a script.
    log
        File for what it says on standard error.
    variables
        Environment variables besides those of this process.
    timeout_seconds
        How long an answer may take, unless ``ask`` says otherwise.
    """

    def __init__(
        self,
        name: str,
        python: Path | str,
        module: str,
        *,
        log: Path,
        variables: Mapping[str, str] | None = None,
        timeout_seconds: float = 600.0,
    ) -> None:
        self.name, self.log, self._timeout = name, log, timeout_seconds
        log.parent.mkdir(parents=True, exist_ok=True)
        run = [module] if module.endswith(".py") else ["-m", module]
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [str(python), *run],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": str(BENCHMARKS), "PYTHONUNBUFFERED": "1", **(variables or {})},
                start_new_session=True,  # a process group of its own, so that its children end with it
            )
        self._unread = b""

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], timeout_seconds: float | None = None) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises
        ------
        WorkerError
            When the answer is an error (the worker can be asked again), or when there is none in time, or it is no
            JSON, or the process died (the worker is ended).
        """
        limit = self._timeout if timeout_seconds is None else timeout_seconds
        answer = self._read(self._send(request), limit)
        if not answer.get("ok"):
            raise WorkerError(f"{self.name}: {answer.get('error', 'gave no reason')}")
        return answer

    def cpu_seconds(self) -> float:
        """Return the processor time that its process has used so far."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ask it to close, then end its whole process group."""
        if self.is_alive:
            with suppress(WorkerError, subprocess.TimeoutExpired):
                self._read(self._send({"do": "close"}), _CLOSE_SECONDS)
                self._process.wait(_CLOSE_SECONDS)
        self._kill()

    def _send(self, request: Mapping[str, Any]) -> str:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._died() from error
        return str(request.get("do"))

    def _read(self, asked: str, limit: float) -> dict[str, Any]:
        line = self._line(time.monotonic() + limit, asked, limit)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self._kill()
            told = line.decode(errors="replace").strip()[:120]
            raise WorkerError(f"{self.name} answered {asked!r} with something that is no answer: {told!r}.")
        return answer

    def _line(self, deadline: float, asked: str, limit: float) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not waiting.select(max(0.0, deadline - time.monotonic())):
                    self._kill()
                    raise WorkerError(f"{self.name} did not answer {asked!r} within {limit:g} s.")
                part = os.read(self._process.stdout.fileno(), 1 << 16)
                if not part:
                    raise self._died()
                self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _died(self) -> WorkerError:
        self._kill()
        code = self._process.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
        return WorkerError(f"{self.name} {how}; it last said: {self._tail() or 'nothing'}")

    def _tail(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return " | ".join(line.strip() for line in lines[-_TAIL_LINES:] if line.strip())[-800:]

    def _kill(self) -> None:
        if self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)  # a process that just closed its output says how it ended
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


@dataclass
class Samples:
    """What workers answered when asked in turn, by their names.

    `answers` holds an answer per round; `failures` says in a sentence why a worker stopped giving them;
    `idle_cpu_seconds` is the processor time that workers used while others were asked, which should be next to nothing.
    """

    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    idle_cpu_seconds: dict[str, float] = field(default_factory=dict)


def interleave(
    workers: Mapping[str, Worker] | list[Worker],
    request: Mapping[str, Any] | Mapping[str, Mapping[str, Any]],
    rounds: int,
    *,
    settle_seconds: float = SETTLE_SECONDS,
) -> Samples:
    """Ask workers in turn, round by round, each beginning with the next one and every other one backwards.

    Parameters
    ----------
    workers
        Open workers.
    request
        What each is asked; a mapping by worker name gives each its own (an object with ``do`` is for all).
    rounds
        How often each is asked.
    settle_seconds
        Pause before each request, in which the threads of the last worker go to sleep.

    Returns
    -------
    Samples; a worker that fails once is not asked again, and the others go on.
    """
    asked = list(workers) if isinstance(workers, list) else list(workers.values())
    samples = Samples({w.name: [] for w in asked}, {}, {w.name: 0.0 for w in asked})
    for round_number in range(rounds):
        for worker in (asked[i] for i in in_turn(len(asked), round_number)):
            if worker.name in samples.failures:
                continue
            time.sleep(settle_seconds)
            before = {w.name: w.cpu_seconds() for w in asked}
            try:
                samples.answers[worker.name].append(worker.ask(request if "do" in request else request[worker.name]))
            except WorkerError as error:
                samples.failures[worker.name] = str(error)
            for other in asked:
                if other is not worker and other.is_alive:
                    samples.idle_cpu_seconds[other.name] += max(0.0, other.cpu_seconds() - before[other.name])
    return samples
