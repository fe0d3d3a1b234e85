from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Call = Callable[..., Result]


def test_a_repository_is_written_and_said(cellscribe: Call, tmp_path: Path) -> None:
    result = cellscribe("triton", "demo", tmp_path / "models", "--name", "blood", "--slots", 4)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert [line.split()[0] for line in result.stderr.splitlines()[1:]] == ["blood_encoder", "blood_decoder", "blood"]
    assert "max_batch_size: 4" in (tmp_path / "models/blood_decoder/config.pbtxt").read_text(encoding="utf-8")
    assert cellscribe("triton", "demo", tmp_path / "others", "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["demo"], 2, "Missing argument"),
        (["demo", "{out}", "--slots", "0"], 2, "greater than or equal to 1"),
        (["demo", "{out}", "--name", "a b"], 2, "is no name for a model"),
        (["demo", "{folder}"], 3, "exists already and is not empty"),
        (["demo", "{out}/in/it"], 3, "does not exist; make it"),
        (["demo-c2s", "{out}"], 3, "lingocell only"),
        (["{folder}", "{out}"], 3, "has no manifest.json"),
        (["demo", "{out}", "--plans", "{folder}"], 3, "has no TensorRT plan"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    cellscribe: Call, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    result = cellscribe("triton", *(one.format(out=tmp_path / "out", folder=folder) for one in arguments))
    assert result.exit_code == code
    assert words in " ".join(result.stderr.split())
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]
