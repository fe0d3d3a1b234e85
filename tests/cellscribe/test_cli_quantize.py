from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from cellscribe.engine.bundle import read_manifest

Call = Callable[..., Result]


def test_a_bundle_is_quantised_inspected_and_verified(cellscribe: Call, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the export extra is not installed")
    out = tmp_path / "out"
    result = cellscribe("quantize", "demo", out, "--precision", "int4", "--keep", "*.q.weight")
    assert result.exit_code == 0
    assert "int4, 2." in result.stderr
    assert "of 2,494 greedy steps" in result.stderr
    assert result.stdout == ""
    shown = cellscribe("inspect", out).stdout
    for words in ("int4", "against fp32", "stored one step finer: *.q.weight"):
        assert words in shown
    checked = cellscribe("verify", out, "--backend", "onnxruntime-cpu")
    assert checked.exit_code == 0
    assert "the same token at" in checked.stdout


def test_a_bundle_that_reads_sentences_is_quantised_inspected_and_verified(
    cellscribe: Call, c2s_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = cellscribe("quantize", c2s_bundle, out, "--precision", "int8")
    assert result.exit_code == 0, result.stderr
    assert "out: c2s, int8" in result.stderr
    assert "against fp32 on 16 prompts (cells.h5ad" in result.stderr
    shown = " ".join(cellscribe("inspect", out).stdout.split())
    for words in ("int8", "against fp32", "greedy steps", "perplexity of its text", "embedding cosine"):
        assert words in shown
    checked = cellscribe("verify", out)
    assert checked.exit_code == 0
    assert "tolerance: logits within" in checked.stdout
    again = cellscribe("quantize", out, tmp_path / "again", "--precision", "int4")
    assert again.exit_code == 3
    assert "is int8; quantise the fp32 bundle of the same model" in " ".join(again.stderr.split())
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["demo"], 2, "Missing argument"),
        (["demo", "{out}", "--precision", "int2"], 2, "'int2' is not one of"),
        (["demo", "{folder}"], 3, "exists already"),
        (["{folder}", "{out}"], 3, "has no manifest.json"),
        (["demo", "{out}", "--keep", "nothing"], 2, "fits no quantised weight"),
        (["demo", "{out}", "--parity-cells", "{out}"], 3, "check the name"),
    ],
)
def test_what_cannot_be_quantised_is_one_sentence(
    cellscribe: Call, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    pytest.importorskip("onnx", reason="the export extra is not installed")
    places = {"out": tmp_path / "out", "folder": tmp_path}
    result = cellscribe("quantize", *(one.format(**places) for one in arguments))
    assert result.exit_code == code
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


def test_without_its_packages_it_says_what_to_install(
    cellscribe: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("cellscribe.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = cellscribe("quantize", "demo", tmp_path / "out")
    assert result.exit_code == 2
    assert "quantize needs onnx; install it with: pip install 'cellscribe[export]'" in result.stderr


@pytest.mark.slow
def test_an_export_is_quantised_on_request(cellscribe: Call, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the export extra is not installed")
    out = tmp_path / "out"
    result = cellscribe("export", out, "--random", "--shape", "lingocell-tiny", "--precision", "int8")
    assert result.exit_code == 0
    assert "quantising: decoder.onnx" in result.stderr
    assert "against fp32 on 64 cells" in result.stderr
    manifest = read_manifest(out)
    assert (manifest.precision, manifest.name) == ("int8", "out")
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
    assert {one.name for one in out.iterdir()} == {*manifest.files, "manifest.json"}
