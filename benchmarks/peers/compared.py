"""Engines asked the same thing in turn: rows, ratios with their intervals, agreement of tokens, files.

A result file holds one entry per comparison; a comparison that was measured with the same engines and sizes is not
measured again unless it is asked for, so that a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from made_by import made_by, words
from peers import floors
from peers.agreement import compare
from peers.floors import PRECISIONS, Floors
from peers.page import THREADS, lines_of, page_of
from peers.registry import MissingPeerError, Peer, start
from peers.worker import Worker, interleave
from results_folder import results_folder

from cellscribe.engine.bench.clock import ratio
from cellscribe.engine.bench.hardware import Hardware
from cellscribe.engine.bench.roofline import Roofline

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
        Tokens or cells that an answer makes; a peer that is asked for another ``n`` of them makes those.
    options
        More options of ``open`` by peer name.
    reference
        The peer whose tokens the others are compared with. Those that compute in float32, as it does, must choose its
        tokens, near-ties left out, or they are not timed.
    asks_margins
        Whether the reference can tell near-ties.
    first
        What differs in the request that warms up and whose tokens are compared before anything is timed.
    may_lack
        Peers whose absence is an answer: they do not run the model. Without others the entry is measured again.
    """

    key: str
    peers: Sequence[Peer]
    request: Mapping[str, Any]
    units: float
    rounds: int = 5
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reference: str = ""
    asks_margins: bool = False
    shape: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, Any] = field(default_factory=dict)
    may_lack: frozenset[str] = frozenset()

    def request_of(self, peer: Peer) -> dict[str, Any]:
        """Return what a peer is asked."""
        return {**self.request, **peer.request}

    def first_request_of(self, peer: Peer) -> dict[str, Any]:
        """Return what a peer is asked before the clock counts: the reference says how near its second choices were."""
        extra = {"margins": True} if self.asks_margins and peer.name == self.reference else {}
        return {**self.request_of(peer), **self.first, **extra}


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
        first = interleave(workers, {one.name: comparison.first_request_of(one) for one in comparison.peers}, 1)
        missing |= _unequal(comparison, first.answers)
        told = interleave(
            {name: one for name, one in workers.items() if name not in first.failures and name not in missing},
            {one.name: comparison.request_of(one) for one in comparison.peers},
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


def kept(
    name: str, comparisons: Sequence[Comparison], parts: Mapping[str, Seconds], work: Floors, *, again: bool = False
) -> None:
    """Measure what the result file lacks, with the roofline before and after, and write it after each comparison.

    What was measured before is kept and judged again by `work`.
    """
    path = results_folder() / f"{name}.json"
    hardware, code = Hardware.here().as_dict(), made_by()
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if found and found.get("hardware") != hardware:
        path.rename(path.with_name(f"{path.stem}.other-machine.json"))
        print(f"{path.name} is of another machine; it is {path.stem}.other-machine.json now", flush=True)
        found = {}
    found |= {"hardware": hardware, "threads": THREADS}
    entries = found.setdefault("comparisons", {})
    for one in comparisons:
        asked = {"engines": [p.name for p in one.peers], "sizes": dict(one.sizes), "rounds": one.rounds}
        old = entries.get(one.key, {})
        if not again and old.get("asked") == asked and set(old.get("missing", ())) <= one.may_lack:
            when, which = old.get("date", "before dates were kept"), words(old.get("made_by"))
            other = "" if old.get("made_by") == code else ", not the code that runs now"
            print(f"{one.key}: kept what was measured {when}, {which}{other}", flush=True)
            continue
        roofline = Roofline(THREADS)
        roofline.measure(is_quick=True)
        entry = measured(one, parts)
        roofline.measure(is_quick=True)
        date = datetime.now(UTC).isoformat(timespec="seconds")
        entries[one.key] = {**entry, "asked": asked, "date": date, "made_by": code, "roofline": roofline.as_dict()}
        _keep(path, found, parts, work)
        print("\n".join(lines_of(one.key, entry, parts)), flush=True)
    _keep(path, found, parts, work)


def _keep(path: Path, found: dict[str, Any], parts: Iterable[str], work: Floors) -> None:
    for entry in found["comparisons"].values():
        entry["ratios"] = _ratios(entry["rows"], parts)
        if "roofline" in entry:
            floors.judge(entry, work)
    _write(path, json.dumps(found, indent=1) + "\n")
    _write(path.with_suffix(".md"), page_of(found["comparisons"], parts))


def _unequal(comparison: Comparison, answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Return why engines are not timed: they compute in float32, as the reference does, and choose other tokens."""
    exact = {peer.name: peer.near_tie for peer in comparison.peers if peer.bits == 32}
    wanted = next(iter(answers.get(comparison.reference, ())), None)
    if wanted is None or "tokens" not in wanted or comparison.reference not in exact:
        return {}
    found = {}
    for name, near_tie in exact.items():
        mine = next(iter(answers.get(name, ())), None)
        if name == comparison.reference or mine is None or "tokens" not in mine:
            continue
        agreement = compare(mine["tokens"], wanted["tokens"], wanted.get("margins"))
        if not agreement.is_same(near_tie):
            found[name] = f"its tokens are not those of {comparison.reference} ({agreement.line()})"
    return found


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
        **({"sizes": dict(peer.request)} if peer.request else {}),
        "notes": opened.get("notes", ""),
        "versions": opened.get("versions", {}),
        "open_seconds": opened.get("open_seconds"),
        "units_per_s": peer.request.get("n", comparison.units) / whole,
        "peak_bytes": max(one["peak_bytes"] for one in answers),
        "running_peak_bytes": max(one["request_peak_bytes"] for one in answers),
        "cpu_seconds": float(np.median([one["cpu_seconds"] for one in answers])),
        "parts": {part: _spread(found) for part, found in seconds.items()},
    }


def _spread(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Quartiles of all samples, and the samples by round."""
    samples = [one for found in rounds for one in found]
    lower, median, upper = (float(one) for one in np.quantile(samples, (0.25, 0.5, 0.75)))
    return {"lower": lower, "median": median, "upper": upper, "rounds": [[round(s, 6) for s in one] for one in rounds]}


def _ratios(rows: Sequence[Mapping[str, Any]], parts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How many times as long each engine takes as each of ours, part by part, with intervals (``clock.Ratio``)."""
    parts, found = tuple(parts), dict[str, dict[str, Any]]()
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
