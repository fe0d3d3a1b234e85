"""The command line: each command parses its options, calls the engine and prints."""

from cellscribe.cli.app import main

__all__ = ["main"]
