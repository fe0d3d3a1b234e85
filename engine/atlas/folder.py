"""The folder of a run: a manifest, shards that appear whole or not at all, and what remembers them.

``manifest.json`` says what is made of what; ``shards/shard-<number>.parquet`` hold the results; ``shards.jsonl`` gets a
line for every shard that was written. What counts is the shards themselves: one that is there, and says that it is of
this run, is done, whatever the other files say after a crash.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cellscribe.engine.atlas.plan import FileEntry, Plan, Shard
from cellscribe.engine.atlas.tables import metadata_of, with_metadata
from cellscribe.engine.errors import OutputError, UsageError
from cellscribe.engine.output.atomic import replacing

FORMAT, VERSION = "cellscribe-atlas", 1
MANIFEST, SHARDS, JOURNAL, LOCK = "manifest.json", "shards", "shards.jsonl", ".lock"
_PROGRESS, _REPORT = "progress.json", "report.html"


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

    @property
    def run(self) -> str:
        """Return 16 hex digits that change with whatever results depend on."""
        told = json.dumps([self.settings, self.bundle, [asdict(one) for one in self.files]], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def plan(self) -> Plan:
        """The files, cut into shards."""
        return Plan(self.files, int(self.settings["shard_cells"]))


class AtlasFolder:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest_path(self) -> Path:
        """The manifest."""
        return self.path / MANIFEST

    @property
    def progress_path(self) -> Path:
        """Figures of the run, for other tools."""
        return self.path / _PROGRESS

    @property
    def report_path(self) -> Path:
        """The page about the run."""
        return self.path / _REPORT

    def shard_path(self, shard: Shard) -> Path:
        """The file of a shard."""
        return self.path / SHARDS / shard.name

    @property
    def is_begun(self) -> bool:
        """Whether a run was begun here."""
        return self.manifest_path.is_file()

    def make(self) -> None:
        """Make the folder; OutputError where that cannot be, or something else is there."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; name a folder for the results.")
        if (
            self.path.is_dir()
            and not self.is_begun
            and any(not one.name.startswith(".") for one in self.path.iterdir())
        ):
            raise OutputError(f"the folder {self.path} holds other files; choose an empty or a new one.")
        try:
            (self.path / SHARDS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be made ({error.strerror}); choose another place.") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine out while a run goes on."""
        with (self.path / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"another process is writing {self.path}; wait for it, or stop it.") from error
            except OSError:  # a file system without locks
                pass
            yield

    def write_manifest(self, manifest: Manifest, records: Iterable[ShardRecord] = ()) -> None:
        """Write the manifest, with the shards that are finished."""
        told = {
            "format": FORMAT, "version": VERSION, "run": manifest.run, "state": manifest.state,
            "settings": dict(manifest.settings), "bundle": dict(manifest.bundle),
            "inputs": [asdict(one) for one in manifest.files], "cells": manifest.plan.n_cells,
            "shards": len(manifest.plan.shards), "versions": dict(manifest.versions),
            "finished": [asdict(one) for one in sorted(records, key=lambda one: one.number)],
        }  # fmt: skip
        with replacing(self.manifest_path) as part:
            part.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def read_manifest(self) -> tuple[Manifest, list[ShardRecord]]:
        """Read the manifest.

        Raises
        ------
        OutputError
            When there is none, or it is damaged or of another release.
        """
        path = self.manifest_path
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["format"] != FORMAT or told["version"] != VERSION:
                raise OutputError(f"{path} is of another release of cellscribe; begin anew in another folder.")
            files = tuple(FileEntry(**one) for one in told["inputs"])
            manifest = Manifest(told["settings"], told["bundle"], files, told["versions"], told["state"])
            if manifest.run != told["run"]:
                raise ValueError("its digest is another")
            return manifest, [ShardRecord(**one) for one in told["finished"]]
        except FileNotFoundError as error:
            raise OutputError(f"{self.path} holds no run; name the folder of `cellscribe atlas`.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path} is damaged ({error}); begin anew in another folder.") from error

    def write_shard(
        self, shard: Shard, table: pa.Table, run: str, seconds: float = 0.0, worker: str = ""
    ) -> ShardRecord:
        """Write a shard under a temporary name, flush it, rename it, and remember it."""
        whole = with_metadata(table, {"run": run, "shard": shard.number, "file": shard.file})
        path = self.shard_path(shard)
        with replacing(path) as part:
            pq.write_table(whole, part, compression="zstd", row_group_size=max(1, len(table)))
            content = part.read_bytes()
        failed = sum(one != "ok" for one in table["status"].to_pylist())
        tokens = sum(table["num_tokens"].to_pylist()) if "num_tokens" in table.column_names else 0
        return ShardRecord(
            shard.number, shard.file, len(table), failed, tokens, len(content), hashlib.sha256(content).hexdigest(),
            round(seconds, 3), worker,
        )  # fmt: skip

    def remember(self, record: ShardRecord) -> None:
        """Add a line about a shard; one that a crash cuts off does no harm."""
        try:
            with (self.path / JOURNAL).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path / JOURNAL} cannot be written ({error.strerror}); free the space.") from error

    def finished(self, manifest: Manifest) -> dict[int, ShardRecord]:
        """Look at the shards that are there: records by number. What is damaged or of another run does not count."""
        remembered = {one.number: one for one in self._journal()}
        found: dict[int, ShardRecord] = {}
        for shard in manifest.plan.shards:
            path = self.shard_path(shard)
            if not path.is_file():
                continue
            try:
                meta = pq.read_metadata(path)
                told = metadata_of(meta.schema.to_arrow_schema())
            except (OSError, ValueError, pa.ArrowException):
                continue
            if (told.get("run"), told.get("shard"), meta.num_rows) != (manifest.run, shard.number, shard.n_cells):
                continue
            size = path.stat().st_size
            known = remembered.get(shard.number)
            found[shard.number] = known if known is not None and known.n_bytes == size else self._looked_at(shard)
        return found

    def clean(self) -> None:
        """Remove what a crash left unfinished."""
        for folder in (self.path, self.path / SHARDS):
            for part in folder.glob(".*.part"):
                with contextlib.suppress(OSError):
                    part.unlink()

    def _journal(self) -> Iterator[ShardRecord]:
        path = self.path / JOURNAL
        if not path.is_file():
            return
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError):
                yield ShardRecord(**json.loads(line))

    def _looked_at(self, shard: Shard) -> ShardRecord:
        """Make the record of a shard that was written, but not remembered."""
        path = self.shard_path(shard)
        names = pq.read_schema(path).names
        table = pq.read_table(path, columns=[name for name in ("status", "num_tokens") if name in names])
        failed = sum(one != "ok" for one in table["status"].to_pylist())
        tokens = sum(table["num_tokens"].to_pylist()) if "num_tokens" in names else 0
        content = path.read_bytes()
        return ShardRecord(
            shard.number, shard.file, len(table), failed, tokens, len(content), hashlib.sha256(content).hexdigest()
        )


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


def space_left(path: Path) -> int:
    """Bytes that a folder's disk has free."""
    stats = os.statvfs(path)
    return stats.f_bavail * stats.f_frsize
