"""The packaged bundle that reads and writes cells as sentences, over the packaged cells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from typer.testing import Result

from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import UsageError
from cellscribe.engine.packaged import named_bundle, packaged_bundle, packaged_cells, packaged_name
from cellscribe.engine.sentence_model import SentenceModel
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.text_cells import write_cells
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import Answer
from cellscribe.engine.verify_text import verify_text_bundle

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[..., Result]
RESULTS = ROOT / "benchmarks/results/demo_c2s_heldout.json"


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    return found


@pytest.fixture(scope="module", params=["auto", "onnxruntime-cpu"])
def model(request: pytest.FixtureRequest) -> TextModel:
    return TextModel(open_bundle(named_bundle("demo-c2s")), 2, request.param)


@pytest.mark.parametrize("backend", ["auto", "onnxruntime-cpu"])
def test_the_bundle_does_here_what_torch_did(backend: str) -> None:
    report = verify_text_bundle(open_bundle(packaged_bundle("demo-c2s")), backend)
    assert report.passed, report.lines()


def test_it_stays_small_and_says_what_it_is(cellscribe: Call) -> None:
    folder = packaged_bundle("demo-c2s")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    said = " ".join(cellscribe("inspect", "demo-c2s").output.split())
    for words in ("demonstration", "knows nothing else", "Apache-2.0", "BSD-3-Clause"):
        assert words in said


def test_it_labels_held_out_cells_as_recorded(model: TextModel, stored: dict[str, Any]) -> None:
    recorded = stored["sets"]["pbmc68k_reduced"]
    cells = ad.read_h5ad(packaged_cells())
    labels = sorted({name for name in stored["type_names"].values() if name in recorded["confusion"]})
    labels = sorted(set(labels) | set(recorded["answers"].values()))
    assert set(recorded["answers"]) == set(cells.obs_names)
    with open_cells(cells) as source:
        found = {one.name: one.text for one in model.about_cells(source, labels=labels, batch_size=16)}
    truth = cells.obs["cell_type_reference"].astype(str).map(stored["type_names"])
    assert np.mean([found[name] == recorded["answers"][name] for name in found]) >= 0.985
    accuracy = np.mean([found[name] == right for name, right in truth.items()])
    assert accuracy == pytest.approx(recorded["accuracy_listed"], abs=0.015)
    assert stored["bundle_hash"] == model.bundle.hash


def test_the_recorded_cell_is_written_again(model: TextModel, stored: dict[str, Any]) -> None:
    cells = ad.read_h5ad(packaged_cells())
    genes = SentenceGenes.of(cells.var_names)
    for label in ("CD19+ B cell", "CD56+ natural killer cell"):
        found, _ = write_cells(model, 1, genes, Inverse(-0.5, 1.5), cell_type=label)
        assert found.obs["cell_sentence"].tolist() == [stored["written"][label]["example"]]


def test_annotate_and_generate_by_its_name(cellscribe: Call, tmp_path: Path, stored: dict[str, Any]) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(stored["type_names"].values()))
    out, written = tmp_path / "out.h5ad", tmp_path / "written.h5ad"
    arguments = ("--bundle", "demo-c2s", "--quiet")
    done = cellscribe("annotate", packaged_cells(), *arguments, "--labels", labels, "-o", out, "--limit", 12)
    assert done.exit_code == 0, done.output
    assert set(ad.read_h5ad(out).obs["cellscribe_label"][:12]) <= set(stored["type_names"].values())
    done = cellscribe(
        "generate", *arguments, "--cell-type", "CD19+ B cell", "-n", 2, "--like", packaged_cells(), "-o", written
    )
    assert done.exit_code == 0, done.output
    assert ad.read_h5ad(written).shape == (2, 765)


def test_cells_that_could_not_be_written(cellscribe: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "written.h5ad"
    arguments = ("generate", "--bundle", "demo-c2s", "-q", "-n", 3, "--like", packaged_cells(), "-o", out)
    told = cellscribe(*arguments, "--cell-type", "x y " * 600)
    assert told.exit_code == 3
    assert "exceed the context of 512; shorten the cell type" in " ".join(told.stderr.split())
    assert not out.exists()
    told = cellscribe("generate", "--bundle", "demo-c2s", *arguments[4:], "--cell-type", "x y " * 600)
    assert "x y x y ..., 100 genes each at most" in " ".join(told.stderr.split())
    assert len(told.stderr) < 1000

    def answers(_: TextModel, names: list[str], *__: object, **___: object) -> tuple[Answer, ...]:
        lost = Answer(names[0], "", (), float("nan"), "failed", "failed: the model's output is not finite")
        return (lost, *(Answer(name, "CD3D CD74", (1, 2), -1.0, "stop") for name in names[1:]))

    monkeypatch.setattr(TextModel, "answers", answers)
    told = cellscribe(*arguments)
    assert told.exit_code == 4
    assert "1 of 3 cells could not be written: the model's output is not finite." in " ".join(told.stderr.split())
    written = ad.read_h5ad(out)
    assert list(written.obs_names) == ["generated_1", "generated_2"]
    assert written.uns["cellscribe"]["num_failed"] == 1


def test_cells_like_those_of_a_layer(cellscribe: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_: TextModel, names: list[str], *__: object, **___: object) -> tuple[Answer, ...]:
        return tuple(Answer(name, "CD3D CD74", (1, 2), -1.0, "stop") for name in names)

    monkeypatch.setattr(TextModel, "answers", answers)
    cells = ad.read_h5ad(packaged_cells())
    cells.layers["steep"] = cells.X.copy()
    cells.layers["steep"].data **= 2
    cells.write_h5ad(tmp_path / "cells.h5ad")
    arguments = ("generate", "--bundle", "demo-c2s", "-q", "-n", 1)
    lines = []
    for i, more in enumerate(((), ("--layer", "steep", "--input", "counts"))):
        out = tmp_path / f"{i}.h5ad"
        told = cellscribe(*arguments, "--like", tmp_path / "cells.h5ad", *more, "-o", out)
        assert told.exit_code == 0, told.stderr
        lines.append(ad.read_h5ad(out).uns["cellscribe_inverse"]["slope"])
    assert lines[0] != lines[1]
    (tmp_path / "genes.txt").write_text("CD3D\n")
    (tmp_path / "fit.json").write_text('{"slope": -1, "intercept": 1}')
    given = ("--genes", tmp_path / "genes.txt", "--fit", tmp_path / "fit.json", "-o", tmp_path / "no.h5ad")
    told = cellscribe(*arguments, *given, "--layer", "steep")
    assert told.exit_code == 2
    assert "say how the cells of --like are read" in " ".join(told.stderr.split())


def test_samples_of_several_cells(cellscribe: Call, tmp_path: Path) -> None:
    out = tmp_path / "samples.h5ad"
    given = ("generate", "--bundle", "demo-c2s", "--like", packaged_cells(), "-n", 2, "--max-new-tokens", 12, "-o", out)
    done = cellscribe(*given, "--cells-per-sample", 5, "--cell-type", "CD19+ B cell", "--genes-per-cell", 5)
    assert done.exit_code == 4, done.output
    said = " ".join(done.stderr.split())
    assert "2 of 10 cells were written; in 2 samples the model ended before its 5 cells." in said
    written = ad.read_h5ad(out)
    assert set(written.obs["sample"]) == {"sample_0", "sample_1"}
    assert written.obs["cell_sentence"].str.split().str.len().max() <= 5
    assert [written.uns["cellscribe"][name] for name in ("num_asked", "num_written", "num_failed")] == [10, 2, 0]
    for more, said in ((("--tissue", "blood"), "add --cells-per-sample"), (("--cells-per-sample", 4), "from 5 to 20")):
        done = cellscribe(*given, *more)
        assert done.exit_code == 2
        assert said in " ".join(done.stderr.split())


def test_groups_that_exceed_the_context_say_how_to_mend_it(cellscribe: Call, tmp_path: Path) -> None:
    cells = ad.read_h5ad(packaged_cells())[:12].copy()
    cells.obs["donor"] = ["a", "b"] * 6
    cells.write_h5ad(tmp_path / "cells.h5ad")
    given = ("ask", tmp_path / "cells.h5ad", "--bundle", "demo-c2s", "--task", "tissue_prediction", "--by", "donor")
    told = cellscribe(*given, "--max-new-tokens", 2)
    assert told.exit_code == 4
    said = " ".join(told.stderr.split())
    assert "exceed the context of 512; choose fewer cells (--cells, group_cells; at least 5), or fewer genes (" in said
    told = cellscribe(*given, "--max-new-tokens", 2, "--genes-per-cell", 5)
    assert told.exit_code == 0, told.stderr


def test_a_folder_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert packaged_name(named_bundle("demo-c2s")) == "demo-c2s"
    monkeypatch.chdir(tmp_path)
    Path("demo-c2s").mkdir()
    assert named_bundle("demo-c2s") == Path("demo-c2s")
    assert packaged_name(Path("demo-c2s")) is None
    assert named_bundle("demo") == packaged_bundle()


def test_without_a_bundle_the_packaged_one_is_taken(cellscribe: Call, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("CD19+ B cell\ndendritic cell\n")
    out = tmp_path / "cells.h5ad"
    for arguments in (
        ("generate", "--cell-type", "B cell", "-n", 3, "-o", out),
        ("ask", packaged_cells(), "Which cell is it?", "--limit", 2, "--max-new-tokens", 3),
        ("annotate", packaged_cells(), "--labels", tmp_path / "labels.txt", "--limit", 2, "-o", tmp_path / "a.csv"),
    ):
        told = cellscribe(*arguments)
        assert told.exit_code == 0, told.output
        said = " ".join(told.stderr.split())
        assert "note: no --bundle is named; demo-c2s is taken" in said
        assert ("of the packaged cells (765 genes)" in said) == (arguments[0] == "generate")
    written = ad.read_h5ad(out)
    assert written.shape == (3, 765)
    again = tmp_path / "again.h5ad"
    told = cellscribe(
        "generate", "--bundle", "demo-c2s", "--like", packaged_cells(), "--cell-type", "B cell", "-n", 3, "-o", again
    )
    assert "no --bundle is named" not in told.stderr
    assert "of the packaged cells" not in told.stderr
    np.testing.assert_array_equal(ad.read_h5ad(again).X.toarray(), written.X.toarray())
    found = SentenceModel(open_bundle(packaged_bundle("demo-c2s"))).generate("B cell", 3)
    np.testing.assert_array_equal(found.X.toarray(), written.X.toarray())


def test_other_bundles_are_told_genes_and_line(tmp_path: Path) -> None:
    copied = shutil.copytree(packaged_bundle("demo-c2s"), tmp_path / "own")
    with pytest.raises(UsageError, match="generate needs genes and a line"):
        SentenceModel(open_bundle(copied)).generate("B cell", 3)
