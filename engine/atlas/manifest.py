"""What a run is made of, what is known of its shards, and whether another run is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from cellscribe.engine.atlas.plan import FileEntry, Plan
from cellscribe.engine.errors import UsageError


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
        """Return 16 hex digits that change with whatever results depend on."""
        told = json.dumps([self.settings, self.bundle, [asdict(one) for one in self.files]], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @cached_property
    def plan(self) -> Plan:
        """The files, cut into shards."""
        return Plan(self.files, int(self.settings["shard_cells"]))


def check_same(old: Manifest, new: Manifest) -> None:
    """Raise UsageError, naming what differs, unless a run can be gone on with."""
    ways = []
    if old.bundle != new.bundle:
        ways.append(f"the bundle is {_bundle(new.bundle)} and was {_bundle(old.bundle)}")
    for name in sorted({*old.settings, *new.settings}):
        before, now = old.settings.get(name), new.settings.get(name)
        if before != now and name != "bundle":
            ways.append(f"{_option(name)} is {_said(now)} and was {_said(before)}")
    ways += _changed_files(old.files, new.files)
    if ways:
        more = f", and {len(ways) - 3} more" if len(ways) > 3 else ""
        raise UsageError(
            f"this run cannot be resumed: {'; '.join(ways[:3])}{more}; ask for what was asked before, or begin anew in "
            "another folder."
        )


def _changed_files(old: Sequence[FileEntry], new: Sequence[FileEntry]) -> list[str]:
    before, now = {one.path: one for one in old}, {one.path: one for one in new}
    ways = [f"{one.name} was not there before" for path, one in now.items() if path not in before]
    ways += [f"{one.name} is not among the inputs any more" for path, one in before.items() if path not in now]
    for path in before.keys() & now.keys():
        one, other = before[path], now[path]
        if one.why != other.why and bool(one.why) != bool(other.why):
            ways.append(f"{one.name} {'can be read now' if one.why else f'cannot be read any more ({other.why})'}")
        elif not one.why and one != other:
            ways.append(f"{one.name} has changed")
    if not ways and [one.path for one in old] != [one.path for one in new]:
        ways.append("the inputs are in another order")
    return ways


def _bundle(told: Mapping[str, str]) -> str:
    return f"{told.get('name')} ({str(told.get('hash'))[:12]})"


def _option(name: str) -> str:
    return "--" + {"layer": "layer", "values": "input"}.get(name, name.replace("_", "-"))


def _said(value: object) -> str:
    return "not given" if value is None else repr(value) if isinstance(value, str) else str(value)
