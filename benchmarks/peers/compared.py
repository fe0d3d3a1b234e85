"""Engines asked the same thing in turn: rows, ratios with their intervals, agreement of tokens, files.

A result file holds one entry per comparison; a comparison that was measured with the same engines and sizes is not
measured again unless it is asked for, so that a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from peers.agreement import compare
from peers.registry import MissingPeerError, Peer, start
from peers.worker import Worker, interleave

from cellscribe.engine.bench.clock import ratio
from cellscribe.engine.bench.hardware import Hardware
from cellscribe.engine.bench.roofline import Roofline

RESULTS = Path(__file__).resolve().parents[1] / "results"
THREADS = len(os.sched_getaffinity(0))
PRECISIONS = {32: "fp32", 16: "fp16", 8: "int8", 4: "int4"}
Seconds = Callable[[dict[str, Any]], Sequence[float]]


@dataclass(frozen=True)
class Comparison:
    """What is asked of whom.

    Parameters
    ----------
    key
        Its name in the result file.
    peers, request, rounds
        Who is asked, what, and how often each; one more round before the first warms up.
    units
        Tokens or cells that an answer makes.
    options
        More options of ``open`` by peer name.
    reference
        The peer whose tokens the others are compared with.
    """

    key: str
    peers: Sequence[Peer]
    request: Mapping[str, Any]
    units: float
    rounds: int = 5
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reference: str = ""
    shape: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)


def measured(comparison: Comparison, parts: Mapping[str, Seconds]) -> dict[str, Any]:
    """Open the engines, ask them in turn, and return the entry of the result file.

    `parts` names what of an answer is judged, as seconds: the whole, the steps, the prompts.
    """
    workers: dict[str, Worker] = {}
    opened: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        for peer in comparison.peers:
            try:
                worker, answer = start(peer, comparison.shape, threads=THREADS, **comparison.options.get(peer.name, {}))
            except MissingPeerError as error:
                missing[peer.name] = str(error)
                continue
            stack.callback(worker.close)
            workers[peer.name], opened[peer.name] = worker, answer
        first = interleave(workers, comparison.request, 1)
        told = interleave(
            {name: one for name, one in workers.items() if name not in first.failures},
            comparison.request,
            comparison.rounds,
        )
    missing |= first.failures | told.failures
    answers = {name: found for name, found in told.answers.items() if name not in missing}
    rows = [_row(peer, comparison, opened[peer.name], answers[peer.name], parts)
            for peer in comparison.peers if peer.name in answers]  # fmt: skip
    return {
        "sizes": dict(comparison.sizes),
        "rounds": comparison.rounds,
        "rows": rows,
        "ratios": _ratios(rows, parts),
        "agreement": _agreement(comparison, {name: found[0] for name, found in answers.items()}),
        "idle_cpu_seconds": told.idle_cpu_seconds,
        "missing": missing,
    }


def kept(name: str, comparisons: Sequence[Comparison], parts: Mapping[str, Seconds], *, again: bool = False) -> None:
    """Measure what the result file lacks, with the roofline before and after, and write it after each comparison."""
    path = RESULTS / f"{name}.json"
    hardware = Hardware.here().as_dict()
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() and not again else {}
    if found.get("hardware") != hardware:
        found = {}
    found |= {"hardware": hardware, "threads": THREADS}
    entries = found.setdefault("comparisons", {})
    for one in comparisons:
        asked = {"engines": [p.name for p in one.peers], "sizes": dict(one.sizes), "rounds": one.rounds}
        if entries.get(one.key, {}).get("asked") == asked:
            continue
        roofline = Roofline(THREADS)
        roofline.measure(is_quick=True)
        entry = measured(one, parts)
        roofline.measure(is_quick=True)
        entries[one.key] = {**entry, "asked": asked, "roofline": roofline.as_dict()}
        _write(path, json.dumps(found, indent=1) + "\n")
        print("\n".join(lines_of(one.key, entry, parts)), flush=True)
    pages = [line for key, entry in entries.items() for line in lines_of(key, entry, parts)]
    _write(path.with_suffix(".md"), "\n".join([f"{Hardware.here().line()}, {THREADS} threads", "", *pages]))


def lines_of(key: str, entry: Mapping[str, Any], parts: Mapping[str, Seconds]) -> list[str]:
    """Say a comparison as a Markdown table."""
    head = ["engine", *(f"{part}, ms (quartiles)" for part in parts), "a second", "peak GB", "tokens as the reference"]
    lines = [f"### {key}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in entry["rows"]:
        cells = [row["who"]]
        for part in parts:
            one = row["parts"][part]
            cells.append(f"{1e3 * one['median']:,.1f} ({1e3 * one['lower']:,.1f} to {1e3 * one['upper']:,.1f})")
        agreement = entry["agreement"].get(row["who"], "")
        cells += [f"{row['units_per_s']:,.2f}", f"{row['peak_bytes'] / 1e9:.2f}", agreement]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, *(f"- {name}: not measured, as {why}" for name, why in entry["missing"].items()), ""]


def _row(
    peer: Peer,
    comparison: Comparison,
    opened: Mapping[str, Any],
    answers: Sequence[dict[str, Any]],
    parts: Mapping[str, Seconds],
) -> dict[str, Any]:
    seconds = {part: [list(of(one)) for one in answers] for part, of in parts.items()}
    whole = float(np.median([one["seconds"] for one in answers]))
    return {
        "who": peer.name,
        "precision": opened.get("precision", PRECISIONS[peer.bits]),
        "bits": peer.bits,
        "notes": opened.get("notes", ""),
        "versions": opened.get("versions", {}),
        "open_seconds": opened.get("open_seconds"),
        "units_per_s": comparison.units / whole,
        "peak_bytes": max(one["peak_bytes"] for one in answers),
        "cpu_seconds": float(np.median([one["cpu_seconds"] for one in answers])),
        "parts": {part: _spread(found) for part, found in seconds.items()},
    }


def _spread(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Quartiles of all samples, and the samples by round."""
    samples = [one for found in rounds for one in found]
    lower, median, upper = (float(one) for one in np.quantile(samples, (0.25, 0.5, 0.75)))
    return {"lower": lower, "median": median, "upper": upper, "rounds": [[round(s, 6) for s in one] for one in rounds]}


def _ratios(rows: Sequence[Mapping[str, Any]], parts: Mapping[str, Seconds]) -> dict[str, dict[str, Any]]:
    """How many times as long each engine takes as each of ours, part by part, with 95 % intervals."""
    found: dict[str, dict[str, Any]] = {}
    for ours in rows:
        if not ours["who"].startswith("cellscribe"):
            continue
        for theirs in rows:
            if theirs is ours:
                continue
            for part in parts:
                a, b = (tuple(map(tuple, one["parts"][part]["rounds"])) for one in (theirs, ours))
                one = ratio(a, b)
                found.setdefault(f"{theirs['who']} / {ours['who']}", {})[part] = [
                    round(one.value, 3), round(one.low, 3), round(one.high, 3)
                ]  # fmt: skip
    return found


def _agreement(comparison: Comparison, answers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    wanted = answers.get(comparison.reference)
    if wanted is None or "tokens" not in wanted:
        return {}
    return {name: compare(one["tokens"], wanted["tokens"]).line() for name, one in answers.items()}


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)
