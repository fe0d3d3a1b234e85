"""Errors a user can cause: one sentence each, with the exit code the command line returns."""

from __future__ import annotations


class CellscribeError(Exception):
    """A problem with a one-sentence message: what is wrong, where, and how to mend it."""

    exit_code = 1


class UsageError(CellscribeError):
    """An option or argument that cannot be honoured (exit code 2)."""

    exit_code = 2


class InputError(CellscribeError):
    """Cells that cannot be read or used (exit code 3)."""

    exit_code = 3


class BundleError(CellscribeError):
    """A bundle that is missing, damaged, foreign or too new (exit code 3)."""

    exit_code = 3


class CheckpointError(CellscribeError):
    """A checkpoint that cannot be exported (exit code 3)."""

    exit_code = 3


class OutputError(CellscribeError):
    """A result that cannot be written where it was asked for (exit code 3)."""

    exit_code = 3


class BackendError(CellscribeError):
    """A runtime or device that cannot do what was asked of it here (exit code 3)."""

    exit_code = 3


class RoomError(BackendError):
    """Too little device memory for the slots asked for; `num_fitting` of them would fit."""

    def __init__(self, message: str, num_fitting: int = 0) -> None:
        super().__init__(message)
        self.num_fitting = num_fitting


class PlanError(BackendError):
    """A TensorRT plan that cannot be built, found or used on this machine (exit code 3)."""

    exit_code = 3
