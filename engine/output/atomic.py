"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellscribe.engine.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` that takes its name when the block ends well.

    The file is flushed to the disk before it is renamed. Whatever ends the block early, Ctrl-C included, removes the
    temporary file and leaves what was at `path` as it was. A symbolic link at `path` is followed.

    Raises
    ------
    OutputError
        When the folder cannot be written or the disk is full.
    """
    target = path.resolve()
    part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield part
        _flush(part)
        os.replace(part, target)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written ({_reason(error)}); free the space or choose another place."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    _flush(target.parent)


def check_folder(folder: Path, path: Path) -> None:
    """Raise OutputError unless a file can be made in `folder`, where `path` is to go."""
    probe = folder / f".{secrets.token_hex(8)}.part"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(
            f"the folder of {path} cannot be written ({_reason(error)}); choose another place."
        ) from error
    finally:
        probe.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error).partition("\n")[0] or type(error).__name__).lower()
