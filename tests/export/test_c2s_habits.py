"""What a checkpoint folder of the family c2s says besides its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cellscribe.engine.bundle.manifest import read_manifest
from cellscribe.engine.errors import CheckpointError
from cellscribe.export.bundle import export_checkpoint
from cellscribe.export.checkpoint.c2s import read_habits


def test_a_bundle_keeps_them(shared: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shared / "fixtures" / "c2s_gpt2" / "model", tmp_path / "model"))
    (folder / "c2s.json").write_text('{"num_genes": 40, "notes": "Only a toy."}')
    export_checkpoint(folder, tmp_path / "bundle", family="c2s")
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.sentences is not None
    assert manifest.sentences.num_genes == 40
    assert manifest.notes == "Only a toy."


def test_a_folder_that_says_nothing(tmp_path: Path) -> None:
    assert read_habits(tmp_path) == (200, "")


@pytest.mark.parametrize("raw", [{"num_genes": 0}, {"num_genes": "40"}, {"num_genes": True}, {"notes": 3}, [40]])
def test_what_cannot_be_read(tmp_path: Path, raw: object) -> None:
    (tmp_path / "c2s.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=r"c2s\.json must be"):
        read_habits(tmp_path)
    (tmp_path / "c2s.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_habits(tmp_path)
