"""Files that cells are picked from: the one that the service was started with, and those that clients upload."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.service.cell_file import DEMO, CellFile
from cellscribe.engine.service.disk import Disk
from cellscribe.engine.service.limits import ServiceLimits, granted
from cellscribe.engine.service.problems import RequestError

__all__ = ["DEMO", "CellFile", "CellFiles", "file_name"]
_ENDING = ".h5ad"
_SHOWN = 200  # characters of a name that is told again
_STEM = 60  # characters of an upload's name, four bytes each at most
_AGAIN_S = 5  # after which a file that is under way may be through


def file_name(given: str) -> str:
    """Return what an upload is called: no folder, nothing that cannot be printed, and not too long.

    Parameters
    ----------
    given
        What the client calls it, perhaps a path of its machine.

    Returns
    -------
    str
        The last part of it in 1 to 200 characters, with its ending if it is one of .h5ad; ``upload.h5ad`` where
        nothing is left that names a file.
    """
    last = given.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(c for c in last if c.isprintable()).strip()
    if not name.strip(". "):
        return f"upload{_ENDING}"
    if len(name) <= _SHOWN:
        return name
    ending = _ENDING if name.endswith(_ENDING) else ""
    return name[: _SHOWN - len(ending)] + ending


class CellFiles:
    """All files that cells can be picked from.

    Parameters
    ----------
    demo
        The file that is there from the start.
    limits
        How many uploads are kept or under way, how large they may be, and for how long.
    on_change
        Hears how many uploads there are.
    """

    def __init__(self, demo: Path, limits: ServiceLimits, on_change: Callable[[int], None] = lambda _: None) -> None:
        self._limits, self._on_change = limits, on_change
        self._folder = tempfile.TemporaryDirectory(prefix="cellscribe-uploads-")
        self._lock = threading.Lock()
        self._uploads: OrderedDict[str, CellFile] = OrderedDict()
        self._under_way: Counter[str] = Counter()
        self._disk = Disk(limits.disk_bytes)
        self.demo = CellFile(DEMO, demo, demo.name, "auto", ReadLimits())

    @contextmanager
    def under_way(self, client: str) -> Iterator[None]:
        """Count a file that is sent, or read as a whole: it takes disk and a process as one that is kept does.

        Raises
        ------
        RequestError
            429 where there are too many, of this client or of all.
        """
        with self._lock:
            self._let_in(client)
            self._under_way[client] += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[client] -= 1
                self._under_way += Counter()  # forgets who has none

    def new_path(self, name: str) -> Path:
        """Return where the next upload is to be written: a folder of its own, and its name as errors will say it."""
        folder = Path(self._folder.name) / secrets.token_hex(8)
        folder.mkdir()
        stem = "".join(c if c.isalnum() or c in " ._-" else "_" for c in name.removesuffix(_ENDING))
        return folder / f"{stem[:_STEM] or 'upload'}{_ENDING}"

    def grow(self, path: Path, owner: str, count: int) -> None:
        """Count bytes that are about to be written; files that are kept make room, first those of who has most.

        Raises
        ------
        RequestError
            429 where there is no room but what others have who have no more than this one would.
        """
        with self._lock:
            gone = self._room_for(owner, count)
        for one in gone:
            self.end(one)
        with self._lock:
            if self._disk.over(count) > 0:  # of files that are under way, or still read
                raise self._disk.refusal()
            self._disk.add(path, owner, count)

    def discard(self, path: Path) -> None:
        """Remove an upload's file."""
        shutil.rmtree(path.parent, ignore_errors=True)
        with self._lock:
            self._disk.forget(path)

    def opened(self, path: Path, name: str, values: ValueChoice, owner: str = "") -> CellFile:
        """Open an uploaded file, in a process with limits of its own, for one who ends it with :meth:`end`.

        Raises
        ------
        InputError
            When it cannot be read; it is gone then.
        """
        source_id, limits = f"up-{secrets.token_urlsafe(12)}", self._limits
        try:
            return CellFile(source_id, path, name, values, limits.reading, limits.upload_s, owner)
        except BaseException:
            self.discard(path)
            raise

    def add(self, path: Path, name: str, values: ValueChoice, owner: str = "") -> CellFile:
        """Open an uploaded file and keep it; another makes room. As :meth:`opened` for errors."""
        found = self.opened(path, name, values, owner)
        with self._lock:
            self._uploads[found.source_id] = found
        self.sweep()
        return found

    def get(self, source_id: str) -> CellFile:
        """Return a file; RequestError 404 where there is none of that name."""
        self.sweep()
        if source_id == DEMO:
            return self.demo
        with self._lock:
            if source_id not in self._uploads:
                raise RequestError(
                    404, f"there is no file {source_id!r}, or it was not used for too long; upload it again.", "source"
                )
            self._uploads.move_to_end(source_id)
            found = self._uploads[source_id]
        found.used = time.monotonic()
        return found

    def remove(self, source_id: str) -> None:
        """Forget an upload; RequestError 404 where there is none of that name."""
        if source_id == DEMO:
            raise RequestError(404, "the file that the service was started with stays; give an upload's id.", "source")
        self.drop(self.get(source_id))

    def drop(self, one: CellFile) -> None:
        """Forget an upload, whether or not it is still kept."""
        with self._lock:
            self._uploads.pop(one.source_id, None)
        self.end(one)

    def sweep(self) -> None:
        """Forget uploads that are too old, or too many: those of the client who has most, used longest ago."""
        now = time.monotonic()
        with self._lock:
            old = [key for key, one in self._uploads.items() if now - one.used > self._limits.upload_s]
            gone = [self._uploads.pop(key) for key in old]
            while len(self._uploads) > self._limits.uploads:
                gone.append(self._uploads.pop(self._least_missed()))
        for one in gone:
            self.end(one)
        self._on_change(len(self._uploads))

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            gone, self._uploads = list(self._uploads.values()), OrderedDict()
        for one in [self.demo, *gone]:
            one.close()
        self._folder.cleanup()

    def end(self, one: CellFile) -> None:
        """Close an upload and remove its file, once nobody reads it any more."""
        one.close(lambda: self.discard(one.path))
        self._on_change(len(self._uploads))

    def _let_in(self, client: str) -> None:
        most, mine = self._limits.files_under_way, self._under_way[client]
        others = self._under_way.total() - mine
        if mine + others >= most:
            raise RequestError(
                429, f"{mine + others} files are being sent or read already, as many as may be; send it again later.",
                retry_after_s=_AGAIN_S,
            )  # fmt: skip
        if mine >= granted(most, others, self._limits.client_share):
            raise RequestError(
                429, f"{mine} files of yours are being sent or read already; send it when one of them is through.",
                retry_after_s=_AGAIN_S,
            )  # fmt: skip

    def _room_for(self, owner: str, count: int) -> list[CellFile]:
        """Take out the files that make room for so many bytes; none of them where they would not."""
        chosen: list[str] = []
        sizes, over = self._disk.of_owners(), self._disk.over(count)
        idle = {key: one for key, one in self._uploads.items() if not one.is_read}
        while over > 0:
            wanted = sizes[owner] + count
            may_go = (key for key, one in idle.items() if one.owner == owner or sizes[one.owner] >= wanted)
            key = max(may_go, key=lambda one: sizes[idle[one].owner], default=None)  # the first of equals
            if key is None:
                raise self._disk.refusal()
            one = idle.pop(key)
            size = self._disk.size(one.path)
            over, sizes[one.owner] = over - size, sizes[one.owner] - size
            chosen.append(key)
        return [self._uploads.pop(key) for key in chosen]

    def _least_missed(self) -> str:
        """Return an upload to forget, so that whoever sends many pushes out none but their own."""
        counts = Counter(one.owner for one in self._uploads.values())
        most = max(counts.values())
        return next(key for key, one in self._uploads.items() if counts[one.owner] == most)
