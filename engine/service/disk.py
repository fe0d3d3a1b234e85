"""The disk that uploaded files take, all of them together."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellscribe.engine.service.problems import RequestError

_AGAIN_S = 5  # after which some of it may be free again
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Disk:
    """Bytes of files by their owners; for one thread at a time.

    Parameters
    ----------
    most
        Bytes that all files together may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: dict[Path, tuple[str, int]] = {}

    def over(self, count: int) -> int:
        """Return how many bytes must go before so many find room; not above 0 where they do."""
        return sum(size for _, size in self._files.values()) + count - self._most

    def add(self, path: Path, owner: str, count: int) -> None:
        """Count bytes that are to be written to a file."""
        self._files[path] = (owner, self._files.get(path, (owner, 0))[1] + count)

    def size(self, path: Path) -> int:
        """Return how many bytes a file has."""
        return self._files.get(path, ("", 0))[1]

    def forget(self, path: Path) -> None:
        """Leave out a file, which is gone."""
        self._files.pop(path, None)

    def of_owners(self) -> Counter[str]:
        """Return the bytes that each owner has."""
        found: Counter[str] = Counter()
        for owner, size in self._files.values():
            found[owner] += size
        return found

    def refusal(self) -> RequestError:
        """Return what is said to whom there is no room for."""
        return RequestError(
            429, f"the files that are here take most of the {self._most:,} bytes that all may have; send it later.",
            retry_after_s=_AGAIN_S,
        )  # fmt: skip


@contextmanager
def disk_may_be_full() -> Iterator[None]:
    """Write; RequestError 507 where the disk has no room left, whoever filled it."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise RequestError(
            507, "the disk of the service has no room for the file; send a smaller one, or tell who runs the service.",
            retry_after_s=_AGAIN_S,
        ) from error  # fmt: skip
