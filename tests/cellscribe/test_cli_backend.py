from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import Result

from cellscribe.engine import gpu
from cellscribe.engine.backends import choose
from cellscribe.engine.errors import BackendError
from cellscribe.engine.types import Description

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_gpu", lambda: False)


@pytest.mark.parametrize("command", ["describe", "embed", "doctor", "demo"])
def test_the_backend_reaches_the_model(
    cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    asked: list[str] = []

    def load(bundle: str, *, backend: str = "", **_: Any) -> Any:
        asked.append(backend)
        return model

    monkeypatch.setattr(sys.modules["cellscribe.engine.model"], "load", load)
    cells = [] if command == "demo" else [cells_file]
    output = ["-o", tmp_path / "out.csv"] if command == "embed" else []
    assert cellscribe(command, *cells, *output).exit_code == 0
    assert cellscribe(command, *cells, *output, "--backend", "onnxruntime-cpu").exit_code == 0
    assert asked == ["auto", "onnxruntime-cpu"]


def test_an_unknown_backend_is_wrong_usage(cellscribe: Call, cells_file: Path) -> None:
    result = cellscribe("describe", cells_file, "--backend", "gpu")
    assert result.exit_code == 2
    assert "onnxruntime-cuda" in result.stderr


def test_a_backend_that_cannot_run_exits_3(cellscribe: Call, model: Any, cells_file: Path) -> None:
    model.error = BackendError("the backend cuda cannot run here: no NVIDIA GPU answers.")
    result = cellscribe("describe", cells_file, "--quiet")
    assert result.exit_code == 3
    assert result.stderr == "error: the backend cuda cannot run here: no NVIDIA GPU answers.\n"


def test_a_run_that_a_backend_ended_is_written_and_exits_4(
    cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = type(model).describe_cells

    def ended(self: Any, source: Any, **options: Any) -> Any:
        run = describe(self, source, **options)
        lost = tuple(Description(one.cell_id, status="failed: GPU 0 ran out of memory") for one in run.descriptions[2:])
        return replace(run, descriptions=(*run.descriptions[:2], *lost), notice="2 slots would fit; went on with 2.")

    monkeypatch.setattr(type(model), "describe_cells", ended)
    result = cellscribe("describe", cells_file, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 4
    assert "3 of 5 cells could not be described: GPU 0 ran out of memory" in result.stderr
    assert "note: 2 slots would fit; went on with 2." in result.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [bool(row["description"]) for row in rows] == [True, True, False, False, False]


def test_doctor_names_gpus_backends_and_why_not(cellscribe: Call, model: Any) -> None:
    result = cellscribe("doctor")
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    for words in ("GPU", "backend tensorrt", "backend cuda", "no NVIDIA GPU answers", "backend onnxruntime-cpu"):
        assert words in said
    assert "can run here" in said


def test_verify_writes_a_report_to_send(cellscribe: Call, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    result = cellscribe("verify", "demo", "--report", out, "--backend", "onnxruntime-cpu")
    assert result.exit_code == 0, result.stderr
    assert "tokens/s" in result.stdout
    report = json.loads(out.read_text())
    assert report["passed"] is True
    assert report["backend"] == "onnxruntime-cpu"
    assert {"machine", "processor", "packages", "GPU", "bundle", "backend"} <= {name for name, _ in report["facts"]}
    assert len(report["timings"]) == 4


def test_verify_without_a_gpu_says_so_and_with_auto_checks_the_cpu(cellscribe: Call, tmp_path: Path) -> None:
    result = cellscribe("verify", "demo", "--backend", "tensorrt", "--report", tmp_path / "r.json")
    assert result.exit_code == 3
    assert "the backend tensorrt cannot run here: no NVIDIA GPU answers" in result.stderr
    assert not list(tmp_path.iterdir())
    result = cellscribe("verify", "demo")
    assert result.exit_code == 0
    assert "passed over tensorrt, cuda, onnxruntime-cuda: no NVIDIA GPU" in result.stdout
    assert "tokens/s" not in result.stdout


def test_verify_refuses_a_report_it_cannot_write(cellscribe: Call, tmp_path: Path) -> None:
    assert cellscribe("verify", "demo", "--report", tmp_path / "r.txt").exit_code == 2
    assert cellscribe("verify", "demo", "--report", tmp_path / "no/r.json").exit_code == 3


@pytest.mark.parametrize(("problem", "built"), [("the bundle demo has no TensorRT plan.", ["this"]), ("", [])])
def test_verify_builds_a_plan_only_where_none_fits(
    cellscribe: Call, monkeypatch: pytest.MonkeyPatch, problem: str, built: list[str]
) -> None:
    asked: list[str] = []

    def build_plans(bundle: Any, target: str) -> Any:
        asked.append(target)
        return SimpleNamespace(lines=lambda: ["built it"])

    monkeypatch.setattr(gpu, "has_gpu", lambda: True)
    monkeypatch.setattr(choose, "problem_of", lambda *_: problem)
    monkeypatch.setitem(sys.modules, "cellscribe.export.tensorrt", SimpleNamespace(build_plans=build_plans))
    monkeypatch.setattr(choose, "_open", lambda *_: (_ for _ in ()).throw(BackendError("no such card.")))
    result = cellscribe("verify", "demo", "--backend", "tensorrt")
    assert asked == built
    assert ("built it" in result.stderr) == bool(built)
    assert "error: " in result.stderr
