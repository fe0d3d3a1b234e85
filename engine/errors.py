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
