"""What TensorRT says, kept until somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_ERRORS, _WARNINGS = ("INTERNAL_ERROR", "ERROR"), ("WARNING",)


class Heard:
    """The messages of one piece of work, by severity."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def add(self, severity: str, message: str) -> None:
        """Keep errors and warnings."""
        if severity in _ERRORS:
            self.errors.append(message)
        elif severity in _WARNINGS:
            self.warnings.append(message)

    def reason(self) -> str:
        """Say in a few words what went wrong: the first error, without its place in TensorRT's source."""
        if not self.errors:
            return "it gave no reason"
        first = self.errors[0].partition("\n")[0].strip()
        return first[:300].rstrip(". ")


@cache
def logger_of(trt: Any) -> Any:
    """Return the one logger of a product.

    TensorRT keeps the first logger that a process gives it and ignores all later ones, so there can only be one, and
    what it hears is handed to whoever is listening.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listeners: list[Heard] = []

        def log(self, severity: Any, message: str) -> None:
            name = str(getattr(severity, "name", severity)).rpartition(".")[-1]
            for one in tuple(self.listeners):
                one.add(name, message)

    return Logger()


@contextmanager
def listening(trt: Any) -> Iterator[Heard]:
    """Collect what a product says during the block."""
    logger, heard = logger_of(trt), Heard()
    logger.listeners.append(heard)
    try:
        yield heard
    finally:
        logger.listeners.remove(heard)
