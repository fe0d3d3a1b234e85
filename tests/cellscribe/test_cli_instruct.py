"""Answers, labels and written cells of an InstructCell on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest
from instruct_bundles import GoldenInstructCell
from typer.testing import Result

from cellscribe.cli import truth_report
from cellscribe.engine.instruct.compare_settings import CompareSettings

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def golden(shared: Path) -> GoldenInstructCell:
    return GoldenInstructCell(shared)


@pytest.fixture
def cells_file(golden: GoldenInstructCell, tmp_path: Path) -> Path:
    cells = golden.cells()
    cells.obs["cell_type"] = ["T Cell", "B Cell", "T Cell", "Monocyte"]
    cells.write_h5ad(tmp_path / "liver.h5ad")
    return tmp_path / "liver.h5ad"


def test_cells_are_asked_about(
    cellscribe: Call, instruct_bundle: Path, cells_file: Path, golden: GoldenInstructCell, tmp_path: Path
) -> None:
    case = golden.case("annot")
    told = cellscribe("ask", cells_file, case.instructions[0], "--bundle", instruct_bundle, "--limit", "1", "-q")
    assert told.exit_code == 0, told.stderr
    assert told.stdout == f"cell_0\t{case.texts[0]}\n"
    told = cellscribe("ask", cells_file, case.instructions[0], "--bundle", instruct_bundle, "--limit", "1")
    assert "500 of the 500 genes the model reads" in told.stderr
    assert "1 answer in" in told.stderr
    out = tmp_path / "out.jsonl"
    told = cellscribe(
        "ask", cells_file, "--task", "drug_sensitivity_prediction", "--set", "drug=JQ1", "--bundle", instruct_bundle,
        "-o", out,
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    assert len(out.read_text().splitlines()) == 4


def test_cells_are_labelled(
    cellscribe: Call, instruct_bundle: Path, cells_file: Path, golden: GoldenInstructCell, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(golden.labels))
    given = ("annotate", cells_file, "--bundle", instruct_bundle)
    told = cellscribe(
        *given, "--labels", tmp_path / "labels.txt", "--set", "tissue=liver", "--scores", "--report",
        tmp_path / "report.html", "--truth", "cell_type", "-o", tmp_path / "out.h5ad",
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    assert "500 of the 500 genes the model reads" in told.stderr
    found = ad.read_h5ad(tmp_path / "out.h5ad")
    assert set(found.obs["cellscribe_label"]) <= set(golden.labels)
    assert "Known labels (cell_type) and found ones" in (tmp_path / "report.html").read_text()
    told = cellscribe(*given, "--instruction", golden.case("annot").instructions[0], "-o", tmp_path / "out.csv")
    assert told.exit_code == 0, told.stderr
    assert pd.read_csv(tmp_path / "out.csv")["label"][0] == golden.case("annot").texts[0]


def test_cells_are_written(cellscribe: Call, instruct_bundle: Path, golden: GoldenInstructCell, tmp_path: Path) -> None:
    out, instruction = tmp_path / "made.h5ad", golden.case("cpcg").instructions[0]
    instruction = instruction.replace("T Cell", "{cell_type}").replace("liver", "{tissue}")
    told = cellscribe(
        "generate", "--bundle", instruct_bundle, "--cell-type", "T Cell", "--tissue", "liver", "--instruction",
        instruction, "-n", "12", "-o", out,
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    assert "12 cells of 500 genes" in told.stderr
    cells = ad.read_h5ad(out)
    assert cells.shape == (12, 500)
    assert cells.obs["tissue"].unique().tolist() == ["liver"]
    assert cells.uns["cellscribe"]["values"] == "counts"


def test_real_cells_are_never_written_over(
    cellscribe: Call, instruct_bundle: Path, cells_file: Path, tmp_path: Path
) -> None:
    before = cells_file.read_bytes()
    asked = ("generate", "--bundle", instruct_bundle, "--cell-type", "T Cell", "-n", "8")
    told = cellscribe(*asked, "-o", cells_file, "--report", tmp_path / "r.html", "--truth", cells_file)
    assert told.exit_code == 2
    assert "is the input itself, which is never written over" in " ".join(told.stderr.split())
    assert cells_file.read_bytes() == before


def test_a_report_compares_with_real_cells_of_all_types(
    cellscribe: Call,
    instruct_bundle: Path,
    golden: GoldenInstructCell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(truth_report, "_SETTINGS", CompareSettings(same_types=True, has_map=False))
    real = ad.concat([golden.cells()] * 5, index_unique="-")
    real.obs["cell_type"] = ["T Cell"] * 10 + ["B Cell"] * 10
    real.write_h5ad(tmp_path / "real.h5ad")
    instruction = golden.case("cpcg").instructions[0].replace("T Cell", "{cell_type}")
    told = cellscribe(
        "generate", "--bundle", instruct_bundle, "--cell-type", "T Cell", "-n", "8", "--instruction",
        instruction, "-o", tmp_path / "made.h5ad", "--report", tmp_path / "r.html", "--truth",
        tmp_path / "real.h5ad",
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    page = " ".join((tmp_path / "r.html").read_text().split())
    assert "Of other types, for pKNN and marker genes but not for mixing, reach and MMD: 10 cells of real.h5ad" in page
    assert "pKNN of 5 neighbours" in page
    assert "sKNN, of real cells" not in page  # of one type it is always 100 %


def test_a_bundle_is_inspected_and_verified(cellscribe: Call, instruct_bundle: Path, tmp_path: Path) -> None:
    told = cellscribe("inspect", instruct_bundle)
    assert told.exit_code == 0, told.stderr
    assert "n_queries 8" in " ".join(told.stdout.split())
    report = tmp_path / "verify.json"
    told = cellscribe("verify", instruct_bundle, "--backend", "onnxruntime-cpu", "--report", report)
    assert told.exit_code == 0, told.stderr
    assert json.loads(report.read_text())["passed"]


def test_the_doctor_looks_at_it(cellscribe: Call, instruct_bundle: Path, cells_file: Path) -> None:
    told = cellscribe("doctor", cells_file, "--bundle", instruct_bundle)
    assert told.exit_code == 0, told.stderr
    assert "to annotate all cells" in " ".join(told.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("describe", "CELLS", "--bundle", "BUNDLE"), "does not describe; use annotate, ask or generate"),
        (("ask", "CELLS", "What?", "--bundle", "BUNDLE", "--by", "cell_type"), "--by is for bundles"),
        (("ask", "CELLS", "What?", "--bundle", "BUNDLE", "--cells", "5"), "--cells is for bundles that read sentences"),
        (("ask", "CELLS", "What?", "--bundle", "BUNDLE", "--organism", "mouse"), "is for bundles that read sentences"),
        (("ask", "CELLS", "What?", "--bundle", "BUNDLE", "--genes-per-cell", "9"), "--genes-per-cell is for bundles"),
        (("ask", "CELLS", "What?", "--bundle", "demo"), "choose one of the family c2s or instructcell"),
        (("generate", "--bundle", "BUNDLE", "-o", "x.h5ad", "--cell-type", "T", "--top-p", "0"), "top_p is 0; choose"),
        (("ask", "CELLS", "What?", "--bundle", "BUNDLE", "--top-p", "0.1"), "top_p 0.1 has no effect on greedy"),
        (("generate", "--bundle", "BUNDLE", "-o", "x.h5ad", "--cell-type", "T", "--top-p", "0.1"), "no effect on gr"),
        (("annotate", "CELLS", "--bundle", "BUNDLE", "-o", "x.csv", "--alpha", "0.5"), "match texts with cells"),
        (("annotate", "CELLS", "--bundle", "BUNDLE", "-o", "x.csv", "--set", "drug"), "write it as name=text"),
        (("annotate", "CELLS", "--bundle", "BUNDLE", "-o", "x.csv", "--in-words"), "needs a list of them"),
        (("annotate", "CELLS", "--bundle", "BUNDLE", "-o", "x.csv", "--template", "x"), "give the number of a prompt"),
        (
            ("generate", "--bundle", "BUNDLE", "-o", "x.h5ad"),
            r"^error: the task cell_generation needs a value for \{cell_type\}; give it with --cell-type \(cell_",
        ),
        (("ask", "CELLS", "Say {cel what is it?", "--bundle", "BUNDLE"), "the instruction has odd braces"),
        (
            ("annotate", "CELLS", "--bundle", "BUNDLE", "-o", "x.csv", "--instruction", "Say {cell"),
            "the instruction has odd braces",
        ),
        (
            ("annotate", "CELLS", "--bundle", "BUNDLE", "-o", "x.csv", "--task", "cell_generation"),
            "the task cell_generation writes cells and asks about none; use generate",
        ),
        (("ask", "CELLS", "--bundle", "BUNDLE", "--task", "cell_generation"), "use generate, or choose cell_type_ann"),
        (("generate", "--bundle", "BUNDLE", "-o", "x.h5ad", "--like", "CELLS"), "--like is for bundles that read"),
        (
            ("generate", "--bundle", "BUNDLE", "-o", "x.h5ad", "--cells-per-sample", "5"),
            "--cells-per-sample is for bun",
        ),
        (("ask", "-", "What?", "--bundle", "BUNDLE"), "answers about cells, and none are given"),
        (("generate", "--bundle", "BUNDLE", "-o", "x.h5ad", "--report", "r.html"), "give both, or none"),
        (
            ("generate", "--bundle", "BUNDLE", "-o", "x.h5ad", "--report", "r.html", "--truth", "CELLS"),
            "compares cells of one type with real ones; name it with --cell-type",
        ),
        (
            (
                "generate",
                "--bundle",
                "BUNDLE",
                "-o",
                "x.h5ad",
                "--report",
                "r.html",
                "--truth",
                "CELLS",
                "--cell-type",
                "Neuron",
            ),
            "no cell of .* is 'Neuron' in the obs column 'cell_type'",
        ),
        (
            (
                "generate",
                "--bundle",
                "BUNDLE",
                "-o",
                "x.h5ad",
                "--report",
                "r.html",
                "--truth",
                "CELLS",
                "--cell-type",
                "T Cell",
                "--truth-label",
                "nothing",
            ),
            "nothing",
        ),
        (("generate", "--bundle", "BUNDLE", "-o", "x.h5ad", "--set", "age=3"), "the field 'age' is not known"),
        (
            ("generate", "--bundle", "BUNDLE", "-o", "x.h5ad", "--cell-type", "T", "--set", "cell_type=B"),
            "cell_type is given as 'T' and as 'B'; give it once",
        ),
        (
            ("annotate", "CELLS", "--bundle", "BUNDLE", "-o", "x.csv", "--set", "drug=A", "--set", "drug=B"),
            "--set gives drug as 'A' and as 'B'",
        ),
        (
            ("ask", "CELLS", "What?", "--bundle", "BUNDLE", "--set", "tissue=liver"),
            r"does not name \{tissue\}, for which a value is given",
        ),
        (
            ("ask", "CELLS", "What?", "--bundle", "BUNDLE", "--template", "1"),
            "an instruction of your own is no template",
        ),
        (
            ("annotate", "CELLS", "--bundle", "BUNDLE", "-o", "x.csv", "--instruction", "What?", "--task", "x"),
            "an instruction of your own is no task",
        ),
        (("embed", "CELLS", "--bundle", "BUNDLE", "-o", "x.h5ad"), "does not embed; use annotate, ask or generate"),
        (("index", "CELLS", "--bundle", "BUNDLE", "-o", "x"), "does not embed"),
        (("bench", "BUNDLE"), "follows instructions"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(
    cellscribe: Call, instruct_bundle: Path, cells_file: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    named = {"BUNDLE": instruct_bundle, "CELLS": cells_file, "x.csv": tmp_path / "x.csv", "x.h5ad": tmp_path / "x.h5ad"}
    told = cellscribe(*(named.get(one, one) for one in arguments))
    assert told.exit_code in (2, 3), told.stdout
    said = " ".join(told.stderr.split())
    assert re.search(message, said), said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("annotate", "--scores"), "the scores of all labels need a list"),
        (("annotate", "--task", "cell_types"), "the task 'cell_types' is not known; choose from cell_type_annotation"),
        (("annotate", "--template", "99"), "99 was asked for"),
        (("annotate", "--instruction", "a", "--template", "0"), "an instruction of your own is no template"),
        (("ask", "--task", "cell_types"), "the task 'cell_types' is not known"),
    ],
)
def test_options_are_checked_before_cells_and_weights(
    cellscribe: Call,
    instruct_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr("cellscribe.engine.instruct_model.choose_backend", lambda *_, **__: pytest.fail("opened"))
    command, *more = arguments
    given = (command, tmp_path / "none.h5ad", "--bundle", instruct_bundle, "-o", tmp_path / "x.csv", *more)
    told = cellscribe(*given)
    assert told.exit_code == 2
    assert message in " ".join(told.stderr.split())


def test_other_families_refuse_instructions(
    cellscribe: Call, c2s_bundle: Path, cells_file: Path, tmp_path: Path
) -> None:
    told = cellscribe("annotate", cells_file, "--bundle", c2s_bundle, "-o", tmp_path / "x.csv", "--in-words")
    assert told.exit_code == 2
    assert "for bundles that follow instructions" in " ".join(told.stderr.split())
    for given, said in (
        (("--means",), "for bundles that follow instructions"),
        (("--tissue", "x"), "add --cells-per-"),
    ):
        told = cellscribe("generate", "--bundle", c2s_bundle, "-o", tmp_path / "x.h5ad", *given)
        assert told.exit_code == 2
        assert said in " ".join(told.stderr.split())
