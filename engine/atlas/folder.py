"""The folder of a run: a manifest, shards that appear whole or not at all, and what remembers them.

``manifest.json`` says what is made of what; ``shards/shard-<number>.parquet`` hold the results; ``shards.jsonl`` gets a
line for every shard that was written. What counts is the shards themselves: one that is there, and says that it is of
this run, is done, whatever the other files say after a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cellscribe.engine.atlas.digested import Digested
from cellscribe.engine.atlas.manifest import Manifest, ShardRecord
from cellscribe.engine.atlas.plan import FileEntry, Shard
from cellscribe.engine.atlas.storage import LocalStorage, storage_of
from cellscribe.engine.atlas.tables import metadata_of, with_metadata
from cellscribe.engine.errors import OutputError

FORMAT, VERSION = "cellscribe-atlas", 2
MANIFEST, SHARDS, JOURNAL = "manifest.json", "shards", "shards.jsonl"
PROGRESS, REPORT = "progress.json", "report.html"
_READERS = 4  # threads that check shards


class AtlasFolder:
    """One run's folder: a path of this machine, or a URL (:mod:`cellscribe.engine.atlas.storage`)."""

    def __init__(self, place: Path | str) -> None:
        self.storage = storage_of(place)
        self.name = self.storage.name

    @property
    def path(self) -> Path:
        """The folder; OutputError for a URL."""
        if not isinstance(self.storage, LocalStorage):
            raise OutputError(f"{self.name} is no folder of this machine; name one.")
        return self.storage.path

    @property
    def manifest_path(self) -> Path:
        """The manifest of a folder of this machine."""
        return self.path / MANIFEST

    @property
    def progress_path(self) -> Path:
        """Figures of the run, for other tools; in a folder of this machine."""
        return self.path / PROGRESS

    @property
    def report_path(self) -> Path:
        """The page about the run; in a folder of this machine."""
        return self.path / REPORT

    def shard_path(self, shard: Shard) -> Path:
        """The file of a shard; in a folder of this machine."""
        return self.path / SHARDS / shard.name

    @property
    def is_begun(self) -> bool:
        """Whether a run was begun here."""
        return self.storage.is_file(MANIFEST)

    def below(self, name: str) -> AtlasFolder:
        """Return the folder of a run within this one."""
        return AtlasFolder(self.path / name if isinstance(self.storage, LocalStorage) else f"{self.name}/{name}")

    def make(self) -> None:
        """Make the folder; OutputError where that cannot be, or something else is there."""
        if not self.is_begun and ({*self.storage.names()} - {SHARDS} or self.storage.sizes(SHARDS)):
            raise OutputError(f"the folder {self.name} holds other files; choose an empty or a new one.")
        self.storage.make(SHARDS)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other processes of this machine out while a run goes on."""
        return self.storage.locked()

    def put(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        with self.storage.replacing(name) as part:
            part.write_text(text, encoding="utf-8")

    def write_manifest(self, manifest: Manifest, records: Iterable[ShardRecord] = ()) -> None:
        """Write the manifest, with the shards that are finished."""
        told = {
            "format": FORMAT, "version": VERSION, "run": manifest.run, "state": manifest.state,
            "settings": dict(manifest.settings), "bundle": dict(manifest.bundle),
            "inputs": [asdict(one) for one in manifest.files], "cells": manifest.plan.n_cells,
            "shards": len(manifest.plan.shards), "versions": dict(manifest.versions),
            "finished": [asdict(one) for one in sorted(records, key=lambda one: one.number)],
        }  # fmt: skip
        self.put(MANIFEST, json.dumps(told, indent=1, ensure_ascii=False) + "\n")

    def read_manifest(self) -> tuple[Manifest, list[ShardRecord]]:
        """Read the manifest.

        Raises
        ------
        OutputError
            When there is none, or it is damaged or of another release.
        """
        where = f"{self.name}/{MANIFEST}"
        try:
            with self.storage.open(MANIFEST) as file:
                told = json.loads(file.read().decode("utf-8"))
            if told["format"] != FORMAT or told["version"] != VERSION:
                raise OutputError(f"{where} is of another release of cellscribe; begin anew in another folder.")
            files = tuple(FileEntry(**one) for one in told["inputs"])
            manifest = Manifest(told["settings"], told["bundle"], files, told["versions"], told["state"])
            if manifest.run != told["run"]:
                raise ValueError("its digest is another")
            return manifest, [ShardRecord(**one) for one in told["finished"]]
        except FileNotFoundError as error:
            raise OutputError(f"{self.name} holds no run; name the folder of `cellscribe atlas`.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{where} is damaged ({error}); begin anew in another folder.") from error

    def read_progress(self) -> dict[str, Any]:
        """Return what was last told of the run's figures; nothing where that is lost."""
        with contextlib.suppress(OSError, ValueError), self.storage.open(PROGRESS) as file:
            told = json.loads(file.read())
            return told if isinstance(told, dict) else {}
        return {}

    def write_shard(
        self, shard: Shard, table: pa.Table, run: str, seconds: float = 0.0, worker: str = ""
    ) -> ShardRecord:
        """Write a shard under a temporary name, flush it, rename it, and remember it."""
        whole = with_metadata(table, {"run": run, "shard": shard.number, "file": shard.file})
        with self.storage.replacing(_file_of(shard)) as part:
            rows = max(1, len(table))
            with part.open("wb") as file:
                digested = Digested(file)
                pq.write_table(whole, digested, compression="zstd", row_group_size=rows, write_page_checksum=True)
        return _record(shard, table, digested.n_bytes, digested.hexdigest(), round(seconds, 3), worker)

    def read_shard(self, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a shard, or those of the columns that it has; FileNotFoundError where it is not there."""
        with self.storage.open(_file_of(shard)) as file:
            parquet = pq.ParquetFile(file)
            there = set(parquet.schema_arrow.names)
            return parquet.read(None if columns is None else [name for name in columns if name in there])

    def schema_of(self, shard: Shard) -> pa.Schema:
        """Return the schema of a shard."""
        with self.storage.open(_file_of(shard)) as file:
            return pq.read_schema(file)

    def begin(self, shard: Shard) -> int:
        """Note that a worker begins a shard, and return how many have since it was last written."""
        return self.storage.append(_begun_file_of(shard), "x")

    def end(self, shard: Shard) -> None:
        """Forget what :meth:`begin` noted."""
        self.storage.remove(_begun_file_of(shard))

    def remember(self, record: ShardRecord) -> None:
        """Add a line about a shard; one that a crash cuts off does no harm."""
        self.storage.append(JOURNAL, json.dumps(asdict(record)) + "\n")

    def finished(self, manifest: Manifest) -> dict[int, ShardRecord]:
        """Look at the shards that are there: records by number. What is damaged or of another run does not count.

        Every byte is read: a shard counts where it has the digest that was remembered of it, or, where a crash came
        before that, where its pages have theirs.
        """
        remembered = {one.number: one for one in self._journal()}
        sizes = self.storage.sizes(SHARDS)

        def looked_at(shard: Shard) -> ShardRecord | None:
            known, seen = remembered.get(shard.number), self.record_of(shard, manifest.run)
            return (known or seen) if seen and (known is None or known.sha256 == seen.sha256) else None

        with ThreadPoolExecutor(_READERS, thread_name_prefix="shards") as pool:
            found = pool.map(looked_at, (one for one in manifest.plan.shards if one.name in sizes))
            return {one.number: one for one in found if one is not None}

    def record_of(self, shard: Shard, run: str) -> ShardRecord | None:
        """Return the record of a shard of a run, None while it is not written whole."""
        if not self.storage.is_file(_file_of(shard)) or not self._is_of(shard, run):
            return None
        return self._looked_at(shard)

    def clean(self) -> None:
        """Remove what a crash left unfinished."""
        for folder in ("", SHARDS):
            self.storage.clean(folder)

    def _is_of(self, shard: Shard, run: str) -> bool:
        """Whether the file of a shard is whole, and of a run."""
        try:
            with self.storage.open(_file_of(shard)) as file:
                meta = pq.read_metadata(file)
                told = metadata_of(meta.schema.to_arrow_schema())
        except (OSError, ValueError, pa.ArrowException):
            return False
        return (told.get("run"), told.get("shard"), meta.num_rows) == (run, shard.number, shard.n_cells)

    def _journal(self) -> Iterator[ShardRecord]:
        if not self.storage.is_file(JOURNAL):
            return
        with self.storage.open(JOURNAL) as file:
            lines = file.read().decode("utf-8", errors="replace").splitlines()
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                yield ShardRecord(**json.loads(line))

    def _looked_at(self, shard: Shard) -> ShardRecord | None:
        """Make the record of a shard from its bytes; None where they are damaged."""
        with self.storage.open(_file_of(shard)) as file:
            content = file.read()
        try:
            table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
        except (OSError, ValueError, pa.ArrowException):
            return None
        return _record(shard, table, len(content), hashlib.sha256(content).hexdigest())


def _file_of(shard: Shard) -> str:
    return f"{SHARDS}/{shard.name}"


def _begun_file_of(shard: Shard) -> str:
    return f"{SHARDS}/.{shard.name}.begun.part"


def _record(
    shard: Shard, table: pa.Table, n_bytes: int, sha256: str, seconds: float = 0.0, worker: str = ""
) -> ShardRecord:
    failed = sum(one != "ok" for one in table["status"].to_pylist())
    tokens = sum(table["num_tokens"].to_pylist()) if "num_tokens" in table.column_names else 0
    return ShardRecord(shard.number, shard.file, len(table), failed, tokens, n_bytes, sha256, seconds, worker)
