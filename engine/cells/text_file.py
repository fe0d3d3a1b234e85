"""Text files, plain or compressed with gzip, read in pieces and never further than their size makes believable."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.errors import InputError

_PIECE = 8 << 20


def find_text(folder: Path, stems: tuple[str, ...], name: str) -> Path:
    """Return the file of one of these names, compressed or not, that lies in a folder.

    Raises
    ------
    InputError
        When there is none, or it is a link out of the folder.
    """
    there = [path for stem in stems for path in (folder / stem, folder / f"{stem}.gz") if path.exists()]
    if not there:
        raise InputError(f"{name} has no {' or '.join(stems)} (nor with .gz), so it is not complete; fetch it again.")
    path = there[0]
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{name}: {path.name} is a link out of the folder; copy the file itself into it.")
    if not path.is_file():
        raise InputError(f"{name}: {path.name} is not a regular file; fetch it again.")
    return path


class TextFile:
    """One open file; a context manager."""

    def __init__(self, path: Path, name: str, limits: ReadLimits) -> None:
        self.where, self.stored = f"{path.name} of {name}", path.stat().st_size
        self.most = max(limits.free_bytes, int(limits.max_expansion * self.stored))
        self._file = cast(BinaryIO, gzip.GzipFile(path)) if path.suffix == ".gz" else path.open("rb")
        self._read = 0

    def __enter__(self) -> TextFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def line(self) -> bytes:
        """Return the next line with its end; empty at the end of the file."""
        with _Damage(self.where):
            return self._counted(self._file.readline(1 << 16))

    def pieces(self) -> Iterator[bytes]:
        """Yield the rest in pieces of whole lines."""
        left = b""
        while piece := self._piece():
            end = piece.rfind(b"\n") + 1
            if end:
                yield left + piece[:end]
                left = piece[end:]
            else:
                left += piece
        if left:
            yield left

    def lines(self) -> list[str]:
        """Return the rest as lines without their ends.

        Raises
        ------
        InputError
            For what is no text.
        """
        try:
            lines = b"".join(self.pieces()).decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.where} is not UTF-8 text; fetch it again.") from error
        return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]

    def _piece(self) -> bytes:
        with _Damage(self.where):
            return self._counted(self._file.read(_PIECE))

    def _counted(self, piece: bytes) -> bytes:
        self._read += len(piece)
        if self._read > self.most:
            raise InputError(
                f"{self.where} grows beyond {self.most:,} bytes of text from {self.stored:,}, so it is damaged or "
                "hostile; fetch it again."
            )
        return piece


class _Damage:
    """Turns what gzip says of a damaged file into a sentence."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, EOFError):
            raise InputError(f"{self._where} ends too early, so it is truncated; fetch it again.") from error
        if isinstance(error, (gzip.BadGzipFile, zlib.error)):
            raise InputError(f"{self._where} is not what gzip wrote, so it is damaged; fetch it again.") from error
