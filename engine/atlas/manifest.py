"""What a run is made of, what is known of its shards, and whether another run is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from cellscribe.engine.atlas.job import OF_TEXTS
from cellscribe.engine.atlas.plan import FileEntry, Plan
from cellscribe.engine.errors import UsageError

_NAMES = ("bundle", "labels", "genes")


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a finished shard."""

    number: int
    file: int
    n_cells: int
    n_failed: int
    n_tokens: int
    n_bytes: int
    sha256: str
    seconds: float = 0.0
    worker: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a run is: job, bundle, inputs; `run` is a digest of them that every shard carries."""

    settings: Mapping[str, Any]
    bundle: Mapping[str, str]
    files: tuple[FileEntry, ...]
    versions: Mapping[str, str]
    state: str = "running"

    @cached_property
    def run(self) -> str:
        """Return 16 hex digits that change with whatever :func:`check_same` compares, and with nothing else."""
        told = [self.asked, self.bundle.get("hash"), [_identity(one) for one in self.files]]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def asked(self) -> dict[str, Any]:
        """The settings, less the names of files whose contents are told by a digest."""
        return {name: value for name, value in self.settings.items() if name not in _NAMES}

    @cached_property
    def plan(self) -> Plan:
        """The files, cut into shards."""
        return Plan(self.files, int(self.settings["shard_cells"]))


def _identity(one: FileEntry) -> dict[str, Any]:
    """Return what tells an input apart; why one was skipped does not count, nor when the same bytes were written."""
    return {**asdict(one), "why": bool(one.why), "stamp": ""}


def check_same(old: Manifest, new: Manifest) -> None:
    """Raise UsageError, naming what differs, unless a run can be gone on with."""
    ways = []
    if old.bundle.get("hash") != new.bundle.get("hash"):
        ways.append(f"the bundle is {_bundle(new.bundle)} and was {_bundle(old.bundle)}")
    is_one_task = old.asked.get("task") == new.asked.get("task")
    names = {*old.asked, *new.asked}.difference(() if is_one_task else OF_TEXTS)
    for name in sorted(names, key=lambda one: (one != "task", one)):
        before, now = old.asked.get(name), new.asked.get(name)
        if before != now:
            ways.append(f"{_option(name)} is {_said(now)} and was {_said(before)}")
    is_chosen_alike = all(old.asked.get(name) == new.asked.get(name) for name in ("where", "limit"))
    ways += _changed_files(old.files, new.files, is_chosen_alike=is_chosen_alike)
    if ways:
        more = f", and {len(ways) - 3} more" if len(ways) > 3 else ""
        raise UsageError(
            f"this run cannot be resumed: {'; '.join(ways[:3])}{more}; ask for what was asked before, or begin anew in "
            "another folder."
        )


def _changed_files(old: Sequence[FileEntry], new: Sequence[FileEntry], *, is_chosen_alike: bool) -> list[str]:
    before, now = {one.path: one for one in old}, {one.path: one for one in new}
    ways = [f"{one.name} was not there before" for path, one in now.items() if path not in before]
    ways += [f"{one.name} is not among the inputs any more" for path, one in before.items() if path not in now]
    for path in before.keys() & now.keys():
        one, other = before[path], now[path]
        if bool(one.why) != bool(other.why):
            ways.append(f"{one.name} {'can be read now' if one.why else f'cannot be read any more ({other.why})'}")
        elif _identity(_unchosen(one)) != _identity(_unchosen(other)):
            ways.append(f"{one.name} has changed")
        elif is_chosen_alike and _identity(one) != _identity(other):
            ways.append(f"other cells of {one.name} are chosen, as its obs has changed")
    if is_chosen_alike and not ways and [one.path for one in old] != [one.path for one in new]:
        ways.append("the inputs are in another order")
    return ways


def _unchosen(one: FileEntry) -> FileEntry:
    return replace(one, chosen=0, chosen_key="")


def _bundle(told: Mapping[str, str]) -> str:
    return f"{told.get('name')} ({str(told.get('hash'))[:12]})"


def _option(name: str) -> str:
    plain = name.removesuffix("_hash")
    return ("what is in --" if plain != name else "--") + {"values": "input"}.get(plain, plain.replace("_", "-"))


def _said(value: object) -> str:
    return "not given" if value is None else repr(value) if isinstance(value, str) else str(value)
