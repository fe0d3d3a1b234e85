"""What becomes of errors: one line on stderr and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import ParamSpec

import typer

DEBUG_VARIABLE = "CELLSCRIBE_DEBUG"
UNEXPECTED, SOME_FAILED, INTERRUPTED, BROKEN_PIPE, TERMINATED = 1, 4, 130, 141, 143

P = ParamSpec("P")


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), as batch schedulers do."""


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """Wrap a command so that it exits with its result, and that no error shows a traceback unless asked to.

    A seed that cannot be, of any command, is such an error.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(_outcome(lambda: _called(command, *args, **kwargs)))

    return run


def _called(command: Callable[P, int | None], *args: P.args, **kwargs: P.kwargs) -> int | None:
    if "seed" in kwargs:
        from cellscribe.engine.types import check_seed

        check_seed(kwargs["seed"])  # type: ignore[arg-type]
    return command(*args, **kwargs)


def _outcome(call: Callable[[], int | None]) -> int:
    try:
        with _ending_on_sigterm():
            return call() or 0
    except typer.Exit as exit_:
        return exit_.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except BaseException as error:
        message, code = explain(_cause(error))
        if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
            traceback.print_exception(error)
        print_error(message)
        return code


def _cause(error: BaseException) -> BaseException:
    """Return the signal behind an error, if there is one: an import that it interrupts raises its own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return seen
        seen = seen.__cause__ or seen.__context__
    return error


def explain(error: BaseException) -> tuple[str, int]:
    """Return one sentence about `error` and the exit code it stands for."""
    from cellscribe.engine.errors import CellscribeError

    if isinstance(error, CellscribeError):
        return str(error), error.exit_code
    if isinstance(error, Terminated):
        return "ended from outside; no unfinished file was left.", TERMINATED
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; no unfinished file was left.", INTERRUPTED
    if isinstance(error, MemoryError):
        return "there is not enough memory; choose a smaller --batch-size or fewer cells.", UNEXPECTED
    first_line = (str(error).strip().splitlines() or [""])[0]
    what = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    return f"something unexpected went wrong ({what}); run again with --debug to see where.", UNEXPECTED


def print_error(message: str) -> None:
    """Print one red line on stderr."""
    from cellscribe.cli.console import error_console
    from cellscribe.engine.output.text import printable

    line = " ".join(printable(message).split())
    error_console().print(f"error: {line}", style="bold red", markup=False, soft_wrap=True)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that unfinished files are removed."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
