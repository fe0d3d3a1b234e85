from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import Result

from cellscribe.cli import progress
from cellscribe.engine import device_facts, gpu
from cellscribe.engine.backends import choose
from cellscribe.engine.backends.choose import Passed
from cellscribe.engine.errors import BackendError
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.types import Description
from cellscribe.kernels.cpu_library import PATH_VARIABLE

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


def test_doctor_says_whether_our_library_runs(
    cellscribe: Call, model: Any, monkeypatch: pytest.MonkeyPatch, native_library: None
) -> None:
    assert "backend cpu can run here" in " ".join(cellscribe("doctor").stdout.split())
    monkeypatch.setenv(PATH_VARIABLE, "")
    assert "backend cpu its library is not there; install" in " ".join(cellscribe("doctor").stdout.split())


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
    assert "compared with ONNX Runtime" not in result.stdout


def test_verify_of_our_library_by_its_name_is_thorough(cellscribe: Call, native_library: None) -> None:
    result = cellscribe("verify", "demo", "--backend", "cpu")
    assert result.exit_code == 0, result.stdout
    assert "CPU, native" in result.stdout
    assert "compared with ONNX Runtime on the CPU:" in result.stdout
    assert "tokens/s" in result.stdout


def test_verify_refuses_a_report_it_cannot_write(cellscribe: Call, tmp_path: Path) -> None:
    assert cellscribe("verify", "demo", "--report", tmp_path / "r.txt").exit_code == 2
    assert cellscribe("verify", "demo", "--report", tmp_path / "no/r.json").exit_code == 3


class Building:
    """Stands in for the builder of plans."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, problem: str, torch_problem: str = "") -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        monkeypatch.setattr(gpu, "has_gpu", lambda: True)
        monkeypatch.setattr(choose, "has_gpu", lambda: True)
        monkeypatch.setattr(choose, "plan_problem", lambda *_, **__: problem)
        monkeypatch.setattr(choose, "torch_problem", lambda: torch_problem)
        monkeypatch.setitem(sys.modules, "cellscribe.export.tensorrt", SimpleNamespace(build_plans=self.build_plans))
        monkeypatch.setattr(choose, "_open", lambda *_: (_ for _ in ()).throw(BackendError("no such card.")))

    def build_plans(self, bundle: Any, target: str, **options: Any) -> Any:
        self.asked.append((target, options))
        return SimpleNamespace(lines=lambda: ["built it"])


@pytest.mark.parametrize(
    ("problem", "torch_problem", "is_built"),
    [("the bundle demo has no TensorRT plan.", "", True), ("", "", False), ("no plan.", "it needs torch.", False)],
)
def test_verify_builds_a_plan_only_where_none_fits_and_it_would_help(
    cellscribe: Call, monkeypatch: pytest.MonkeyPatch, problem: str, torch_problem: str, is_built: bool
) -> None:
    building = Building(monkeypatch, problem, torch_problem)
    result = cellscribe("verify", "demo", "--backend", "tensorrt")
    assert [target for target, _ in building.asked] == ["this"] * is_built
    assert ("built it" in result.stderr) == is_built
    assert (f"building a plan with 32 slots for this GPU: {problem}" in result.stderr) == is_built
    assert "error: " in result.stderr


def test_verify_builds_where_it_was_told_to_look_and_shows_how_far_it_is(
    cellscribe: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def bars() -> Iterator[str]:
        yield "bars"

    building = Building(monkeypatch, "no plan.")
    monkeypatch.setattr(progress, "file_bars", bars)
    cellscribe("verify", "demo", "--backend", "tensorrt", "--plans", tmp_path)
    assert building.asked == [("this", {"slots": 32, "output": tmp_path, "progress": "bars"})]


def test_a_file_has_a_bar_of_its_own_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    with progress.file_bars() as report:
        assert report is None
    monkeypatch.setattr(progress, "error_console", lambda: Console(file=screen, force_terminal=True, width=80))
    with progress.file_bars() as report:
        assert report is not None
        for share in (0.0, 0.5, 1.0):
            report("encoder.plan", share)
        report("decoder.plan", 0.25)
    assert "encoder.plan" in screen.getvalue()
    assert "25%" in screen.getvalue()


@pytest.mark.parametrize("command", ["describe", "embed", "doctor"])
def test_plans_reach_the_model(
    cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    asked: list[Any] = []

    def load(bundle: str, *, plans: Any = None, **_: Any) -> Any:
        asked.append(plans)
        return model

    monkeypatch.setattr(sys.modules["cellscribe.engine.model"], "load", load)
    output = ["-o", tmp_path / "out.csv"] if command == "embed" else []
    for given in ((), ("--plans", tmp_path)):
        assert cellscribe(command, cells_file, *output, *given).exit_code == 0
    assert asked == [None, tmp_path]


def test_plans_for_another_backend_are_wrong_usage(cellscribe: Call, tmp_path: Path) -> None:
    result = cellscribe("verify", "demo", "--backend", "onnxruntime-cpu", "--plans", tmp_path)
    assert result.exit_code == 2
    assert "is for TensorRT and the backend is onnxruntime-cpu" in result.stderr
    assert cellscribe("verify", "demo", "--plans", tmp_path).exit_code == 0


@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_plans_that_are_not_there_are_wrong_usage(cellscribe: Call, tmp_path: Path, backend: str) -> None:
    for command in (("verify", "demo"), ("doctor",), ("describe", packaged_cells())):
        result = cellscribe(*command, "--backend", backend, "--plans", tmp_path / "nope")
        assert result.exit_code == 2, command
        assert "nope, which is no folder; name one made by" in result.stderr


def test_verify_says_what_building_a_plan_lacks(cellscribe: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoOnnx:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "cellscribe.export.tensorrt":
                raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    Building(monkeypatch, "no plan.")
    monkeypatch.delitem(sys.modules, "cellscribe.export.tensorrt")
    monkeypatch.setattr(sys, "meta_path", [NoOnnx(), *sys.meta_path])
    result = cellscribe("verify", "demo", "--backend", "tensorrt")
    assert "no plan was built, as building needs onnx; install it with: pip install" in result.stderr
    assert "error: " in result.stderr


@pytest.mark.parametrize("command", ["describe", "embed", "doctor"])
def test_that_our_library_was_passed_over_is_said_once_without_a_gpu_too(
    cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(device_facts, "has_gpu", lambda: False)
    model.passed = (Passed("cuda", "no NVIDIA GPU answers."), Passed("cpu", "this CPU lacks AVX2."))
    output = ["-o", tmp_path / "out.csv"] if command == "embed" else []
    result = cellscribe(command, cells_file, *output)
    said = " ".join((result.stdout + result.stderr).split())
    assert said.count("passed over") == said.count("passed over cpu: this CPU lacks AVX2.") == 1


@pytest.mark.parametrize("command", ["describe", "embed", "doctor"])
@pytest.mark.parametrize("is_gpu", [False, True])
def test_what_was_passed_over_is_said_where_there_is_a_gpu(
    cellscribe: Call,
    model: Any,
    cells_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    is_gpu: bool,
) -> None:
    monkeypatch.setattr(device_facts, "has_gpu", lambda: is_gpu)
    model.passed = (Passed("cuda", "the kernels were not built."),)
    output = ["-o", tmp_path / "out.csv"] if command == "embed" else []
    result = cellscribe(command, cells_file, *output)
    said = " ".join((result.stdout + result.stderr).split())
    assert ("passed over cuda: the kernels were not built." in said) == is_gpu
    if command != "doctor":
        assert "passed over" not in cellscribe(command, cells_file, *output, "--quiet").stderr


def test_what_the_backend_remarks_is_said_after_describing(cellscribe: Call, model: Any, cells_file: Path) -> None:
    model.remarks = ("steps are not captured.",)
    assert "note: steps are not captured." in cellscribe("describe", cells_file).stderr
    assert "note" not in cellscribe("describe", cells_file, "--quiet").stderr


def test_a_bundle_that_is_not_there_is_said_alike_for_option_and_argument(cellscribe: Call, tmp_path: Path) -> None:
    result = cellscribe("verify", tmp_path / "nope")
    assert result.exit_code == 3
    assert "nope is not a folder; name a bundle made by `cellscribe export`" in result.stderr
    assert "--bundle" not in result.stderr
