"""Where the files of a run lie: a folder of this machine, maybe shared with others, or what fsspec reaches by a URL."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from cellscribe.engine.atlas.urls import asked_of, file_system, is_url, local_path
from cellscribe.engine.errors import OutputError, UsageError
from cellscribe.engine.output.atomic import replacing

LOCK = ".lock"
_APPEND_SECONDS = 5.0


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
        """Add to the end of a file, at once or within seconds, and return its bytes; OutputError where that fails."""
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


class UrlStorage:
    """Objects below a URL, each put whole; a file that grows is put anew, every few seconds at most."""

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")
        self._grown: dict[str, tuple[float, bytes]] = {}
        file_system(self.name)

    def make(self, *folders: str) -> None:
        """See :class:`Storage`."""
        with asked_of(self.name):
            for one in folders:
                file_system(self.name).makedirs(self._at(one), exist_ok=True)

    def names(self) -> list[str]:
        """See :class:`Storage`."""
        return [name for name in self._listed(self.name) if not name.startswith(".")]

    def sizes(self, folder: str) -> dict[str, int]:
        """See :class:`Storage`."""
        return self._listed(self._at(folder))

    def is_file(self, name: str) -> bool:
        """See :class:`Storage`."""
        with asked_of(self.name):
            return bool(file_system(self.name).isfile(self._at(name)))

    def open(self, name: str) -> BinaryIO:
        """See :class:`Storage`."""
        with asked_of(self.name):
            return cast(BinaryIO, file_system(self.name).open(self._at(name), "rb"))

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """See :class:`Storage`."""
        with tempfile.TemporaryDirectory(prefix="cellscribe-") as folder:
            part = Path(folder) / "part"
            part.touch()
            try:
                yield part
            except OSError as error:
                raise OutputError(
                    f"{self._at(name)} could not be written ({error.strerror or error}); free space in {folder}."
                ) from error
            with asked_of(self.name):
                file_system(self.name).put_file(str(part), self._at(name))

    def append(self, name: str, text: str) -> int:
        """See :class:`Storage`."""
        put, content = self._grown.get(name, (0.0, None))
        if content is None:
            content = self._content(name)
        content += text.encode()
        if time.monotonic() - put >= _APPEND_SECONDS:
            put = time.monotonic()
            with asked_of(self.name):
                file_system(self.name).pipe_file(self._at(name), content)
        self._grown[name] = (put, content)
        return len(content)

    def remove(self, name: str) -> None:
        """See :class:`Storage`."""
        self._grown.pop(name, None)
        with contextlib.suppress(FileNotFoundError), asked_of(self.name):
            file_system(self.name).rm_file(self._at(name))

    def clean(self, folder: str) -> None:
        """See :class:`Storage`."""
        for name in self._listed(self._at(folder)):
            if name.startswith(".") and name.endswith(".part"):
                self.remove(f"{folder}/{name}".lstrip("/"))

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Objects have no locks."""
        return contextlib.nullcontext()

    def below(self, name: str) -> UrlStorage:
        """See :class:`Storage`."""
        return UrlStorage(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self.name}/{name}" if name else self.name

    def _content(self, name: str) -> bytes:
        if not self.is_file(name):
            return b""
        with self.open(name) as file:
            return file.read()

    def _listed(self, url: str) -> dict[str, int]:
        system = file_system(url)
        with asked_of(self.name):
            try:
                found = system.ls(url, detail=True)
            except FileNotFoundError:
                return {}
        return {str(one["name"]).rstrip("/").rpartition("/")[2]: int(one.get("size") or 0) for one in found}
