"""Files that fsspec reaches by a URL: which it is, what lies below it, and a copy of it on this machine."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from cellscribe.engine.cells.kinds import KINDS_BY_SUFFIX, MATRICES, ZARR_MARKS
from cellscribe.engine.errors import CellscribeError, InputError, OutputError, UsageError

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(::[a-zA-Z][a-zA-Z0-9+.-]*)*://")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def is_url(place: str) -> bool:
    """Whether a name is a URL."""
    return _URL.match(place) is not None


def local_path(url: str) -> Path | None:
    """Return the path of a ``file://`` URL, None for another one."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme in ("file", "local") else None


def file_system(url: str) -> Any:
    """Return the file system of a URL.

    Raises
    ------
    UsageError
        When fsspec, or its package for such URLs, is not there, or there is none.
    InputError
        When a file that it opens for that, as an archive in a chained URL, is not there or cannot be read.
    """
    scheme = url.partition("://")[0]
    package = _PACKAGES.get(scheme, "")
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url, use_listings_cache=False)[0]
    except ImportError as error:
        needed = "fsspec" if error.name == "fsspec" else package or str(error).rstrip(".")
        mend = f"`pip install {' '.join(dict.fromkeys(['fsspec', package])).strip()}`"
        raise UsageError(f"{url} needs {needed}; {mend}, or name a folder.") from error
    except ValueError as error:
        raise UsageError(f"{url} is no URL that can be used ({error}); name a folder, or s3://bucket/name.") from error
    except FileNotFoundError as error:
        raise _absent(url) from error
    except Exception as error:  # every file system has errors of its own
        raise _unusable(url, error, InputError) from error


@contextmanager
def asked_of(url: str, kind: type[CellscribeError] = OutputError) -> Iterator[None]:
    """Raise what goes wrong with a URL as one sentence; FileNotFoundError stays what it is."""
    try:
        yield
    except (CellscribeError, FileNotFoundError):
        raise
    except Exception as error:  # every file system has errors of its own
        raise _unusable(url, error, kind) from error


def _unusable(url: str, error: Exception, kind: type[CellscribeError]) -> CellscribeError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return kind(f"{url} cannot be used ({reason}); check the address and your credentials.")


def _absent(url: str) -> InputError:
    return InputError(f"there is no {url}; check the address.")


def cell_urls(url: str) -> list[str]:
    """Return the cells that a URL stands for: itself, what matches a pattern, or all inputs below it.

    Raises
    ------
    InputError
        When there are none, or it cannot be reached.
    """
    system = file_system(url)
    with asked_of(url, InputError):
        try:
            is_pattern = any(sign in url for sign in "*?[") and not system.exists(url)
            starts = sorted(map(str, system.glob(url))) if is_pattern else [url]
            found = [one for start in starts for one in _below(system, start)]
        except FileNotFoundError as error:
            raise _absent(url) from error
    if not found:
        raise InputError(f"{url} stands for no cells; check the address.")
    return [str(system.unstrip_protocol(one)) for one in found]


def _below(system: Any, place: str) -> list[str]:
    if system.isfile(place):
        return [place] if Path(place).suffix in KINDS_BY_SUFFIX else []
    try:
        inside = sorted(str(one).rstrip("/") for one in system.ls(place, detail=False))
    except FileNotFoundError:
        return []
    names = {one.rpartition("/")[2] for one in inside}
    if not names.isdisjoint((*MATRICES, *ZARR_MARKS)):
        return [place]
    return [found for one in inside if not one.rpartition("/")[2].startswith(".") for found in _below(system, one)]


class Scratch:
    """Copies of inputs that are named by URLs, one at a time, in a temporary folder."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    def local(self, place: str | Path) -> Path:
        """Return the path of an input on this machine; the copy that was made before is removed.

        Raises
        ------
        InputError
            When it cannot be fetched.
        """
        if isinstance(place, Path) or not is_url(place):
            return Path(place)
        self.close()
        self._folder = Path(tempfile.mkdtemp(prefix="cellscribe-"))
        copy = self._folder / place.rstrip("/").rpartition("/")[2]
        with asked_of(place, InputError):
            try:
                system = file_system(place)
                if system.isfile(place):
                    system.get_file(place, str(copy))
                else:
                    system.get(place.rstrip("/") + "/", f"{copy}/", recursive=True)
            except FileNotFoundError as error:
                raise _absent(place) from error
        return copy

    def close(self) -> None:
        """Remove the copy."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
