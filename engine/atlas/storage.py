"""Where the files of a run lie: a folder of this machine, maybe shared with others, or what fsspec reaches by a URL."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from cellscribe.engine.atlas.url_storage import UrlStorage
from cellscribe.engine.atlas.urls import is_url, local_path
from cellscribe.engine.errors import OutputError, UsageError
from cellscribe.engine.output.atomic import replacing

LOCK = ".lock"


class Storage(Protocol):
    """A place for files that appear whole or not at all; a file is named by its path below the place."""

    name: str

    def make(self, *folders: str) -> None:
        """Make the place with folders in it; OutputError where that cannot be."""
        ...

    def names(self) -> list[str]:
        """Return what lies there, hidden files left out; nothing where there is no such place."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the bytes of the files of a folder, by name."""
        ...

    def is_file(self, name: str) -> bool:
        """Whether a file is there."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; FileNotFoundError where there is none."""
        ...

    def replacing(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Give a file of this machine that becomes the named one when the block ends well."""
        ...

    def append(self, name: str, text: str) -> int:
        """Add to the end of a file, and return its bytes; OutputError where that fails.

        Some storage does so within seconds, or when the block of :meth:`locked` ends.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def clean(self, folder: str) -> None:
        """Remove what a crash left unfinished in a folder ("" for the place itself)."""
        ...

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other processes of this machine out, where the place has locks."""
        ...

    def below(self, name: str) -> Storage:
        """Return a place within this one."""
        ...


def storage_of(place: Path | str) -> Storage:
    """Return the storage of a folder, or of a URL (``s3://bucket/run``; ``file://`` ones are folders)."""
    text = str(place)
    if isinstance(place, Path) or not is_url(text):
        return LocalStorage(Path(place))
    path = local_path(text)
    return LocalStorage(path) if path is not None else UrlStorage(text)


class LocalStorage:
    """A folder; files are written under another name, flushed and renamed."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def make(self, *folders: str) -> None:
        """See :class:`Storage`."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; name a folder for the results.")
        try:
            for one in folders:
                (self.path / one).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be made ({error.strerror}); choose another place.") from error

    def names(self) -> list[str]:
        """See :class:`Storage`."""
        found = self.path.iterdir() if self.path.is_dir() else ()
        return [one.name for one in found if not one.name.startswith(".")]

    def sizes(self, folder: str) -> dict[str, int]:
        """See :class:`Storage`."""
        place = self.path / folder
        return {one.name: one.stat().st_size for one in place.iterdir() if one.is_file()} if place.is_dir() else {}

    def is_file(self, name: str) -> bool:
        """See :class:`Storage`."""
        return (self.path / name).is_file()

    def open(self, name: str) -> BinaryIO:
        """See :class:`Storage`."""
        return (self.path / name).open("rb")

    def replacing(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """See :class:`Storage`."""
        return replacing(self.path / name)

    def append(self, name: str, text: str) -> int:
        """See :class:`Storage`."""
        try:
            with (self.path / name).open("ab") as file:
                file.write(text.encode())
                return file.tell()
        except OSError as error:
            raise OutputError(f"{self.path / name} cannot be written ({error.strerror}); free the space.") from error

    def remove(self, name: str) -> None:
        """See :class:`Storage`."""
        with contextlib.suppress(OSError):
            (self.path / name).unlink()

    def clean(self, folder: str) -> None:
        """See :class:`Storage`."""
        for part in (self.path / folder).glob(".*.part"):
            with contextlib.suppress(OSError):
                part.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See :class:`Storage`."""
        with (self.path / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"{self.path} is being written by another process; wait for it, or stop it."
                ) from error
            except OSError:  # a file system without locks
                pass
            yield

    def below(self, name: str) -> LocalStorage:
        """See :class:`Storage`."""
        return LocalStorage(self.path / name)
