from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from cellscribe.engine.bench.roofline import Roofline

Cellscribe = Callable[..., Result]
FAST = ("--quick", "--rounds", 1, "--seconds", 0, "--threads", 1, "--backend", "onnxruntime-cpu")


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(self: Roofline, *, is_quick: bool = False) -> None:
        self.add({"read": 20e9, "copy": 18e9, "fp32": 60e9})

    monkeypatch.setattr(Roofline, "measure", measure)


def test_tables_and_files(cellscribe: Cellscribe, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    done = cellscribe("bench", "demo", *FAST, "--questions", "slots,prompts", "--slots", "2,1", "-o", folder)
    assert done.exit_code == 0, done.output
    assert "How long does a step take with more slots?" in done.stdout
    assert "1 slot " in done.stdout
    assert "2 slots" in done.stdout
    assert "%†" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "ms" in line and "wrote" not in line)
    told = json.loads((folder / "bench.json").read_text())
    assert told["finished"] == ["slots 1", "slots 2", "prompts 1", "prompts 8"]
    assert told["bundle"]["name"] == "demo"
    assert told["command"] == (
        "cellscribe bench demo --questions slots,prompts --slots 2,1 --rounds 1 --seconds 0.0 --threads 1 "
        "--backend onnxruntime-cpu --quick"
    )
    assert str(tmp_path) not in (folder / "bench.json").read_text()
    assert "| onnxruntime-cpu | fp32" in (folder / "bench.md").read_text()


def test_it_goes_on_with_the_same_settings_alone(cellscribe: Cellscribe, tmp_path: Path) -> None:
    call = ("bench", *FAST, "-o", tmp_path, "--slots", "1")
    assert cellscribe(*call, "--questions", "slots").exit_code == 0
    before = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert cellscribe(*call, "--questions", "slots,encoding", "--resume", "-q").exit_code == 0
    after = json.loads((tmp_path / "bench.json").read_text())
    assert after["rows"][0]["rounds"] == before[0]["rounds"]
    assert after["finished"] == ["slots 1", "encoding 1", "encoding 8"]
    other = cellscribe("bench", *FAST, "-o", tmp_path, "--slots", "2", "--resume")
    assert other.exit_code == 2
    assert "other settings" in other.output


def test_ctrl_c_keeps_finished_rows(cellscribe: Cellscribe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellscribe.engine.bench import run

    real, groups = run.measured, []

    def measured(group: Any, *rest: Any) -> Any:
        groups.append(group.key)
        if len(groups) == 2:
            raise KeyboardInterrupt
        return real(group, *rest)

    monkeypatch.setattr(run, "measured", measured)
    done = cellscribe("bench", *FAST, "--questions", "slots", "--slots", "1,2", "-o", tmp_path)
    assert done.exit_code == 130
    assert "--resume goes on" in done.output
    assert json.loads((tmp_path / "bench.json").read_text())["finished"] == ["slots 1"]
    assert (tmp_path / "bench.md").is_file()


def test_ctrl_c_before_the_first_row_keeps_nothing_and_says_so(
    cellscribe: Cellscribe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(self: Roofline, *, is_quick: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Roofline, "measure", measure)
    done = cellscribe("bench", *FAST, "--questions", "slots", "--slots", "1", "-o", tmp_path)
    assert done.exit_code == 130
    assert "nothing was kept" in done.output
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_there_are_tables(
    cellscribe: Cellscribe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = cellscribe("bench", *FAST, "--questions", "slots", "--slots", "1", "-o", tmp_path)
    assert done.exit_code == 0
    assert "cellscribe[bench]" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "bench.md"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--questions", "speed"), 2, "'speed' is not known"),
        (("--questions", ","), 2, "list of questions is empty"),
        (("--slots", ""), 2, "list of slots is empty"),
        (("--slots", "1,two"), 2, "whole numbers"),
        (("--slots", "0"), 2, "choose whole numbers from 1"),
        (("--rounds", "0"), 2, "--rounds"),
        (("--resume",), 3, "no bench.json"),
        (("--cells", "none.h5ad"), 3, "none.h5ad"),
    ],
)
def test_bad_input_is_one_sentence(
    cellscribe: Cellscribe, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = cellscribe("bench", *arguments, "-o", tmp_path / "found")
    assert done.exit_code == code
    assert words in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_bundles_and_folders_that_are_not_there(cellscribe: Cellscribe, tmp_path: Path) -> None:
    done = cellscribe("bench", tmp_path / "none", "-o", tmp_path / "found")
    assert done.exit_code == 3
    assert "not a folder" in " ".join(done.output.split())
    done = cellscribe("bench", "-o", tmp_path / "no" / "such")
    assert done.exit_code == 3
    assert "does not exist" in " ".join(done.output.split())
