"""What goes wrong on the device while texts are written, in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from cellscribe.engine.errors import BackendError, RoomError

_LIBRARIES = ("cuda", "cublas", "cudnn", "nvrtc")


@contextlib.contextmanager
def running(torch: Any, name: str) -> Iterator[None]:
    """Turn what torch raises while it works on the device `name` into RoomError or BackendError.

    A run then keeps the texts that are finished. An error that is not the device's is a mistake of ours, and is left
    as it is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RoomError(
            f"{name} ran out of memory ({_first(error)}); choose a smaller --batch-size, or free the GPU."
        ) from error
    except RuntimeError as error:
        if not any(library in str(error).lower() for library in _LIBRARIES):
            raise
        raise BackendError(
            f"{name} failed ({_first(error)}); run `cellscribe doctor`, or choose --backend onnxruntime."
        ) from error


def _first(error: BaseException) -> str:
    """Return the first sentence of what torch says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0].rstrip(".")
