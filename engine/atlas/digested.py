"""A file whose digest is made while it is written."""

from __future__ import annotations

import hashlib
from typing import BinaryIO


class Digested:
    """Passes bytes on to an open file, and counts and digests them; what pyarrow wants of a file, no more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self.n_bytes, self.closed, self.mode = 0, False, "wb"

    def write(self, content: bytes | memoryview) -> int:
        """Add bytes to the end."""
        self._digest.update(content)
        self.n_bytes += len(content)
        return self._file.write(content)

    def tell(self) -> int:
        """Return the bytes written."""
        return self.n_bytes

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self._file.flush()

    def close(self) -> None:
        """Leave the file to the one who opened it."""
        self.closed = True

    def readable(self) -> bool:
        """Return False."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return False."""
        return False

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was written."""
        return self._digest.hexdigest()
