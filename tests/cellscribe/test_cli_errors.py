from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Call = Callable[..., Result]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-o", "out.txt"], 2, "end the name in .h5ad"),
        (["-o", "{cells}"], 2, "is the input itself"),
        (["-o", "nowhere/out.csv"], 3, "does not exist"),
        (["--report", "out.pdf"], 2, "end the name in .html"),
        (["--save-attn", "out.npy"], 2, "end the name in .npz"),
        (["--max-new-tokens", "0"], 2, "max_new_tokens is 0"),
        (["--max-new-tokens", "257"], 2, "choose a whole number"),
        (["--top-p", "0.5"], 2, "add --sampling top-p"),
        (["--sampling", "top-p", "--top-p", "1.5"], 2, "top_p is 1.5"),
        (["--sampling", "top-p", "--temperature", "-1"], 2, "temperature is -1"),
        (["--key-added", "a/b"], 2, "key_added is 'a/b'"),
        (["--cell-id", "nobody"], 3, "has no cell nobody"),
        (["--bundle", "missing"], 3, "missing is not a folder"),
    ],
)
def test_a_bad_option_is_one_sentence(
    cellscribe: Call,
    model: Any,
    cells_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    before, files = cells_file.read_bytes(), set(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    result = cellscribe("describe", cells_file, *(one.format(cells=cells_file) for one in arguments))
    assert result.exit_code == code
    assert words in result.stderr
    lines = result.stderr.strip().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines
    assert len(lines) == 1
    assert result.stdout == ""
    assert cells_file.read_bytes() == before
    assert set(tmp_path.iterdir()) == files
    assert model.calls == []


def test_a_missing_input_exits_3(cellscribe: Call, model: Any, tmp_path: Path) -> None:
    result = cellscribe("describe", tmp_path / "none.h5ad")
    assert result.exit_code == 3
    assert result.stderr == f"error: {tmp_path / 'none.h5ad'} does not exist; check the name.\n"


@pytest.mark.parametrize(
    "arguments", [["describe"], ["describe", "x", "--nonsense"], ["describe", "x", "--sampling", "z"], ["what"]]
)
def test_wrong_usage_exits_2(cellscribe: Call, arguments: list[str]) -> None:
    assert cellscribe(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "smaller --batch-size"),
        (
            ZeroDivisionError("by\nzero\x1b[2J"),
            1,
            "unexpected went wrong (ZeroDivisionError: by); run again with --debug",
        ),
    ],
)
def test_other_errors_are_one_line(
    cellscribe: Call, model: Any, cells_file: Path, tmp_path: Path, error: BaseException, code: int, words: str
) -> None:
    model.error = error
    result = cellscribe("describe", cells_file, "-o", tmp_path / "out.h5ad", "--quiet")
    assert result.exit_code == code
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


def test_debug_shows_the_traceback(
    cellscribe: Call, model: Any, cells_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.error = ZeroDivisionError("by zero")
    monkeypatch.setenv("CELLSCRIBE_DEBUG", "1")
    result = cellscribe("describe", cells_file)
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one"], "give the checkpoint and then the new bundle"),
        (["one", "two", "--random", "--shape", "s"], "takes no checkpoint"),
        (["one", "--random"], "belong together"),
    ],
)
def test_export_wants_its_folders(cellscribe: Call, arguments: list[str], words: str) -> None:
    result = cellscribe("export", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_export_without_its_packages_says_what_to_install(cellscribe: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cellscribe.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = cellscribe("export", "one", "two")
    assert result.exit_code == 2
    assert "pip install 'cellscribe[export]'" in result.stderr


def test_inspect_refuses_what_is_no_bundle(cellscribe: Call, tmp_path: Path) -> None:
    result = cellscribe("inspect", tmp_path)
    assert result.exit_code == 3
    assert "has no manifest.json" in result.stderr


def test_inspect_prints_the_manifest(cellscribe: Call, tmp_path: Path) -> None:
    from cellscribe.engine.bundle.figures import Parity
    from cellscribe.engine.bundle.manifest import FileRecord, Manifest, PromptRecord
    from cellscribe.engine.bundle.shapes import EncoderShape
    from cellscribe.engine.cells.spec import CellInput

    manifest = Manifest(
        name="tiny [bold]",
        family="lingocell",
        tasks=("describe", "embed"),
        precision="fp32",
        encoder=EncoderShape(d_model=64, n_layers=2, n_heads=4, d_ffn=64),
        cells=CellInput(layout="fixed", selection="list", num_genes=1200),
        prompt=PromptRecord("Say what\nit is.", (1, 2, 3), (2,)),
        parity=Parity(8, "real cells", 1e-6, 0.99999, 1e-6, 2e-5, 1.0, 640),
        files={"encoder.onnx": FileRecord(2_500_000, "cd" * 32)},
        versions={"torch": "2.13"},
    )
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    result = cellscribe("inspect", tmp_path)
    assert result.exit_code == 0
    for words in (
        "tiny [bold]", "describe, embed", "d_model 64", "num_genes 1200", "3 tokens", "it is.", "8 cells (real cells)",
        "100.00 % of 640 greedy tokens equal", "encoder.onnx", "2.5 MB", "cdcdcdcdcdcdcdcd", "torch 2.13",
    ):  # fmt: skip
        assert words in result.stdout


def test_a_closed_pipe_is_not_an_error(tmp_path: Path) -> None:
    script = (
        "import sys, typer; from cellscribe.cli.guard import guarded\n"
        "@guarded\n"
        "def work():\n    for _ in range(100_000): print('x' * 100, flush=True)\n"
        "app = typer.Typer(pretty_exceptions_enable=False); app.command()(work); app(args=[])\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(timeout=20) == 141


@pytest.mark.parametrize(("code", "limit_s"), [("import cellscribe", 0.3), ("import cellscribe.cli", 0.5)])
def test_imports_are_quick_and_light(code: str, limit_s: float) -> None:
    heavy = "[m for m in ('torch', 'anndata', 'onnxruntime', 'pandas', 'numpy') if m in sys.modules]"
    script = f"import sys, time; t = time.perf_counter(); {code}; print(time.perf_counter() - t, {heavy})"
    best = limit_s
    for _ in range(3):
        seconds, _, loaded = subprocess.check_output([sys.executable, "-c", script], text=True).partition(" ")
        assert loaded.strip() == "[]"
        best = min(best, float(seconds))
        time.sleep(0.01)
    assert best < limit_s


def test_debug_is_accepted_after_the_command() -> None:
    script = "import os; from cellscribe.cli import main; main(['describe', 'none.h5ad', '-o', 'x.txt', '--debug'])"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "No such option" not in child.stderr
    assert "Traceback" in child.stderr


def test_the_public_names_are_there() -> None:
    import cellscribe

    assert {"load", "Sampling", "Model", "Description", "Piece", "CellscribeError"} <= set(dir(cellscribe))
    assert cellscribe.Sampling(top_p=0.9, temperature=0.7).top_p == 0.9
    assert cellscribe.__version__
    with pytest.raises(AttributeError, match="nonsense"):
        cellscribe.nonsense  # noqa: B018
