"""Seeds that cannot be, of every command that takes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from typer.testing import Result

from cellscribe.cli import annotate, ask, atlas, c2s, compare, describe, embed, export, generate
from cellscribe.engine.errors import UsageError
from cellscribe.engine.sentences.transform import TransformOptions
from cellscribe.engine.text_types import TextSettings

Call = Callable[..., Result]
COMMANDS = {
    "annotate CELLS --bundle demo-c2s -o a.csv": annotate.annotate,
    "ask CELLS Why? --bundle demo-c2s": ask.ask,
    "atlas CELLS --bundle demo -o out": atlas.atlas,
    "c2s transform CELLS -o out": c2s.transform,
    "compare CELLS CELLS -o out.html": compare.compare,
    "describe CELLS": describe.describe,
    "embed CELLS -o out.h5ad": embed.embed,
    "export random:lingocell-tiny out": export.export,
    "generate --bundle demo-c2s -o out.h5ad": generate.generate,
}


@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.parametrize("seed", ["99999999999999999999999", "-5"])
def test_one_sentence(cellscribe: Call, line: str, seed: str) -> None:
    assert "seed" in inspect.signature(COMMANDS[line]).parameters
    told = cellscribe(*line.split(), "--seed", seed)
    assert told.exit_code == 2
    assert (
        told.stderr.strip().splitlines()[-1].startswith(f"error: seed is {seed}; choose a whole number from 0 to 2**63")
    )


@pytest.mark.parametrize("seed", [-1, 2**63, True, "1", 1.0])
def test_of_settings(seed: object) -> None:
    for make in (TextSettings, TransformOptions):
        with pytest.raises(UsageError, match=r"seed is .*; choose a whole number from 0 to 2\*\*63 - 1"):
            make(seed=seed)  # type: ignore[arg-type]
