"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellscribe.engine.errors import OutputError


def check_target(folder: Path) -> None:
    """Raise OutputError unless a new folder can be made at a place."""
    if folder.exists():
        raise OutputError(f"{folder} exists already; choose another name, or remove it first.")
    if not folder.resolve().parent.is_dir():
        raise OutputError(f"the folder {folder.resolve().parent} does not exist; make it, or choose another place.")
    if not os.access(folder.resolve().parent, os.W_OK):
        raise OutputError(f"the folder {folder.resolve().parent} cannot be written; choose another place.")


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Build in a temporary folder beside the target and rename it when all is done; leave nothing behind otherwise."""
    target = folder.resolve()
    try:
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{target.parent} cannot be written ({error.strerror}); choose another place.") from error
    try:
        yield part
        _publish(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _publish(part: Path, target: Path) -> None:
    try:
        part.chmod(0o755)
        for path in part.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        part.rename(target)
    except OSError as error:
        raise OutputError(f"{target} could not be written ({error.strerror}); choose another place.") from error
