"""The files of a run behind a URL that fsspec reaches."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from cellscribe.engine.atlas.urls import asked_of, file_system
from cellscribe.engine.errors import OutputError

_APPEND_SECONDS = 5.0


class UrlStorage:
    """Objects below a URL, each put whole; a file that grows is put anew, every few seconds and when a run ends."""

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")
        self._grown: dict[str, tuple[float, bytes]] = {}
        self._late: set[str] = set()  # grown since they were put
        file_system(self.name)

    def make(self, *folders: str) -> None:
        """See :class:`cellscribe.engine.atlas.storage.Storage`."""
        with asked_of(self.name):
            for one in folders:
                file_system(self.name).makedirs(self._at(one), exist_ok=True)

    def names(self) -> list[str]:
        """See :class:`cellscribe.engine.atlas.storage.Storage`."""
        return [name for name in self._listed(self.name) if not name.startswith(".")]

    def sizes(self, folder: str) -> dict[str, int]:
        """See :class:`cellscribe.engine.atlas.storage.Storage`."""
        return self._listed(self._at(folder))

    def is_file(self, name: str) -> bool:
        """See :class:`cellscribe.engine.atlas.storage.Storage`."""
        with asked_of(self.name):
            return bool(file_system(self.name).isfile(self._at(name)))

    def open(self, name: str) -> BinaryIO:
        """See :class:`cellscribe.engine.atlas.storage.Storage`."""
        with asked_of(self.name):
            return cast(BinaryIO, file_system(self.name).open(self._at(name), "rb"))

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """See :class:`cellscribe.engine.atlas.storage.Storage`."""
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
        """See :class:`cellscribe.engine.atlas.storage.Storage`."""
        put, content = self._grown.get(name, (0.0, None))
        if content is None:
            content = self._content(name)
        content += text.encode()
        self._grown[name] = (put, content)
        self._late.add(name)
        if time.monotonic() - put >= _APPEND_SECONDS:
            self._put(name)
        return len(content)

    def remove(self, name: str) -> None:
        """See :class:`cellscribe.engine.atlas.storage.Storage`."""
        self._grown.pop(name, None)
        self._late.discard(name)
        with contextlib.suppress(FileNotFoundError), asked_of(self.name):
            file_system(self.name).rm_file(self._at(name))

    def clean(self, folder: str) -> None:
        """See :class:`cellscribe.engine.atlas.storage.Storage`."""
        for name in self._listed(self._at(folder)):
            if name.startswith(".") and name.endswith(".part"):
                self.remove(f"{folder}/{name}".lstrip("/"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Objects have no locks; what was added to files is put when the block ends, well or not."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # what ended the block is told, not what came of it
                self._put_late()
            raise
        self._put_late()

    def below(self, name: str) -> UrlStorage:
        """See :class:`cellscribe.engine.atlas.storage.Storage`."""
        return UrlStorage(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self.name}/{name}" if name else self.name

    def _put_late(self) -> None:
        for name in sorted(self._late):
            self._put(name)

    def _put(self, name: str) -> None:
        content = self._grown[name][1]
        with asked_of(self.name):
            file_system(self.name).pipe_file(self._at(name), content)
        self._grown[name] = (time.monotonic(), content)
        self._late.discard(name)

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
