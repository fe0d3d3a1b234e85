"""The worker's side: requests and answers as lines of JSON, one engine per process; standard library only.

A request is an object whose ``do`` names what is wanted; the answer holds ``ok``, and ``error`` where that is false:

=============  ==============================================  ================================================
``do``         also                                            answer
=============  ==============================================  ================================================
``open``       options of the engine (``model``, ``threads``)  ``versions``, ``precision``, ``threads``, ``notes``
``generate``   ``prompts`` [B][P] ids, ``new_tokens`` N        ``tokens`` [B][N], ``seconds``, ``prefill_seconds``,
                                                               ``step_seconds`` [N - 1]
``complete``   the same, and ``batch``: prompts at a time      the same, the batches' times added, their steps in turn
``describe``   ``cells`` B, ``new_tokens`` N                   the same, and ``encode_seconds``
``encode``     ``cells`` B, ``batch``, ``save`` (an .npy)      ``seconds``, ``batch_seconds``
``close``
=============  ==============================================  ================================================

Decoding is greedy and exactly N tokens long. Every answer also has ``rss_bytes``, ``peak_bytes`` (most memory resident
so far, files mapped included), ``request_peak_bytes`` (most while this request ran) and ``cpu_seconds`` (processor time
of all threads while it ran). Answers go to the standard output that the process was started with; whatever libraries
print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

Answer = dict[str, Any]


class Engine:
    """What a worker runs: a method ``do_<name>`` for every request it knows, called with the request's other fields."""

    def do_close(self) -> Answer:
        """Let go of the model; the process ends afterwards."""
        return {}


def serve(engine: Engine) -> None:
    """Answer requests until ``close`` or the end of the input."""
    answers = _real_output()
    for request in _requests(sys.stdin):
        peak_before = _memory()["VmHWM"]
        _forget_peak()
        cpu = time.process_time()
        answer = _answer(engine, request)
        memory = _memory()
        answer |= {
            "cpu_seconds": time.process_time() - cpu,
            "rss_bytes": memory["VmRSS"],
            "request_peak_bytes": memory["VmHWM"],
            "peak_bytes": max(peak_before, memory["VmHWM"], _Peak.bytes),
        }
        _Peak.bytes = answer["peak_bytes"]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if request.get("do") == "close":
            return


def one_sentence(error: BaseException) -> str:
    """Say an error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[0] if lines else "no reason given"
    return f"{type(error).__name__}: {told}"[:500]


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of installed packages."""
    found = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


class StepClock:
    """Splits the time of a generation into its first token (prefill) and the steps that gave the others."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._ticks: list[float] = []

    def tick(self) -> None:
        """Note that a token of every text was chosen."""
        self._ticks.append(time.perf_counter())

    def answer(self, tokens: Sequence[Sequence[int]], new_tokens: int) -> Answer:
        """Return the fields of a ``generate`` answer; the total reaches from before the prefill to now."""
        seconds = time.perf_counter() - self._started
        chosen = [[int(token) for token in row] for row in tokens]
        if any(len(row) != new_tokens for row in chosen):
            raise RuntimeError(f"asked for {new_tokens} tokens a text and got {sorted({len(row) for row in chosen})}")
        if len(self._ticks) != new_tokens:
            raise RuntimeError(f"asked for {new_tokens} tokens and saw {len(self._ticks)} steps")
        steps = [b - a for a, b in zip(self._ticks, self._ticks[1:])]  # noqa: B905
        return {
            "tokens": chosen,
            "seconds": seconds,
            "prefill_seconds": self._ticks[0] - self._started,
            "step_seconds": steps,
        }


def cpu_features() -> list[str]:
    """Return the vector extensions of this processor that matter to products of matrices."""
    wanted = ("avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8")
    try:
        with open("/proc/cpuinfo", encoding="ascii") as lines:
            flags = next((line.split() for line in lines if line.startswith("flags")), [])
    except OSError:
        return []
    return [name for name in wanted if name in flags]


class _Peak:
    bytes = 0


def _real_output() -> TextIO:
    """Keep the standard output for answers, and send everything else that is printed to standard error."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return kept


def _requests(lines: TextIO) -> Iterator[Mapping[str, Any]]:
    while line := lines.readline():
        if line.strip():
            yield json.loads(line)


def _answer(engine: Engine, request: Mapping[str, Any]) -> Answer:
    name = str(request.get("do"))
    method = getattr(engine, f"do_{name}", None)
    if method is None:
        return {"ok": False, "error": f"this engine does not know the request {name!r}."}
    try:
        started = time.perf_counter()
        answer = method(**{key: value for key, value in request.items() if key != "do"})
    except Exception as error:
        traceback.print_exc()
        return {"ok": False, "error": one_sentence(error)}
    if name == "open":
        answer["open_seconds"] = time.perf_counter() - started
        answer["cpu"] = cpu_features()
    return {"ok": True, **answer}


def _memory() -> dict[str, int]:
    """Return the kernel's figures of this process in bytes: resident now, and at most."""
    found = {"VmHWM": 0, "VmRSS": 0}
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in found:
                    found[name] = int(value.split()[0]) * 1024
    except OSError:
        pass
    return found


def _forget_peak() -> None:
    """Let the kernel count the peak anew; where it will not, a request's peak is that of the process."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass
