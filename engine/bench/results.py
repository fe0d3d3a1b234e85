"""The rows of a run with all that they depend on: one JSON file, written whole after every group of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cellscribe.engine.bench.roofline import Roofline
from cellscribe.engine.bench.row import Row
from cellscribe.engine.errors import InputError, OutputError, UsageError
from cellscribe.engine.output.atomic import check_folder, replacing

SCHEMA = 1
JSON_NAME, MARKDOWN_NAME, PLOT_NAME = "bench.json", "bench.md", "bench.png"
_MUST_MATCH = ("bundle", "settings", "hardware", "contenders", "versions", "cells")
_WORDS = {"bundle": "bundle", "settings": "settings", "hardware": "machine", "contenders": "engines"}


@dataclass
class Results:
    """What was found so far.

    Parameters
    ----------
    folder
        Where the files go.
    head
        What the rows depend on, of JSON's types: ``bundle`` (name, hash), ``settings``, ``hardware``, ``contenders``,
        ``versions``, ``cells`` (the file's name) and ``command``; no paths of this machine.
    """

    folder: Path
    head: Mapping[str, Any]
    roofline: Roofline
    rows: list[Row] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def add(self, key: str, rows: tuple[Row, ...]) -> None:
        """Keep the rows of a finished group, and write all."""
        self.rows += rows
        self.finished.append(key)
        self.skipped.pop(key, None)
        self.write()

    def skip(self, key: str, why: str) -> None:
        """Note why a group is missing, and write all."""
        self.skipped[key] = why
        self.write()

    def judged(self) -> tuple[Row, ...]:
        """Return the rows under the best ceilings of the whole run; those of other devices stay without."""
        return tuple(row.under(self.roofline.ceilings(row.precision) if row.threads else None) for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            "schema": SCHEMA,
            "date": self.date,
            **self.head,
            "roofline": self.roofline.as_dict(),
            "finished": self.finished,
            "skipped": self.skipped,
            "rows": [row.as_dict() for row in self.judged()],
        }

    def write(self) -> None:
        """Write the JSON file as a whole."""
        with replacing(self.folder / JSON_NAME) as path:
            text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
            path.write_text(text + "\n", encoding="utf-8")

    def resume(self) -> None:
        """Take over what an earlier run in the folder found.

        Raises
        ------
        InputError
            When there is no such file, or it is damaged.
        UsageError
            When it was measured with anything else than this run.
        """
        found = read_results(self.folder)
        for name in _MUST_MATCH:
            if found.get(name) != json.loads(json.dumps(self.head.get(name))):
                raise UsageError(
                    f"{JSON_NAME} was measured with other {_WORDS.get(name, name)}, and such rows do not go together; "
                    "leave --resume out or choose another folder."
                )
        path = self.folder / JSON_NAME
        self.rows = [Row.from_dict(row, path) for row in found["rows"]]
        self.finished, self.skipped = list(found["finished"]), {}
        self.date = str(found["date"])
        earlier = Roofline.from_dict(found["roofline"], path)
        for name, rates in earlier.rates.items():
            self.roofline.rates[name] = [*rates, *self.roofline.rates.get(name, [])]
        self.roofline.busy = [*earlier.busy, *self.roofline.busy]


def read_results(folder: Path) -> dict[str, Any]:
    """Read a results file.

    Raises
    ------
    InputError
        When there is none, or it is damaged or of another release.
    """
    path = folder / JSON_NAME
    if not path.is_file():
        raise InputError(f"{folder} has no {JSON_NAME} to go on with; leave --resume out.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not {"rows", "finished", "date", "roofline"} <= found.keys():
            raise ValueError("entries are missing")
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); measure again without --resume.") from error
    if found.get("schema") != SCHEMA:
        raise InputError(f"{path} was written by another release; measure again without --resume.")
    return found


def results_folder(folder: Path, *, resumes: bool = False) -> Path:
    """Return a folder for results, made if only it is missing.

    Earlier results are never written over: they are gone on with (`resumes`), or another folder is taken.

    Raises
    ------
    OutputError
        When its parent is missing, something else has its name, or it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder for the results.")
    if (folder / JSON_NAME).exists() and not resumes:
        raise OutputError(f"{folder} holds results already; go on with them (--resume), or choose another folder.")
    if not folder.parent.is_dir():
        raise OutputError(f"{folder.parent} does not exist; make it, or choose another folder for the results.")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}); choose another folder.") from error
    check_folder(folder, folder / JSON_NAME)
    return folder
