"""What keeps a report from being made is said before any work; what fails after it leaves the written cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import pytest
from instruct_bundles import GoldenInstructCell
from typer.testing import Result

from cellscribe.cli import truth_report
from cellscribe.cli.truth_report import TruthReport
from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.instruct.compare_settings import CompareSettings
from cellscribe.engine.instruct_model import InstructModel

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def golden(shared: Path) -> GoldenInstructCell:
    return GoldenInstructCell(shared)


@pytest.fixture
def real(golden: GoldenInstructCell, tmp_path: Path) -> Path:
    cells = ad.concat([golden.cells()] * 4, index_unique="-")
    cells.obs["cell_type"] = ["T Cell"] * 8 + ["B Cell"] * 7 + ["Mast Cell"]
    cells.write_h5ad(tmp_path / "real.h5ad")
    return tmp_path / "real.h5ad"


@pytest.fixture
def asked(instruct_bundle: Path, golden: GoldenInstructCell, real: Path, tmp_path: Path) -> tuple[object, ...]:
    words = golden.case("cpcg").instructions[0].replace("T Cell", "{cell_type}")
    return (
        "generate", "--bundle", instruct_bundle, "--cell-type", "T Cell", "-n", "7", "--instruction", words,
        "-o", tmp_path / "made.h5ad", "--report", tmp_path / "r.html", "--truth", real,
    )  # fmt: skip


def test_too_few_cells_are_said_before_any_work(real: Path, tmp_path: Path) -> None:
    report = TruthReport(tmp_path / "r.html", real, "cell_type")
    report.check(tmp_path / "made.h5ad", {"cell_type": "T Cell"}, 6)
    with pytest.raises(UsageError, match="6 cells at least and -n is 2; ask for more"):
        report.check(tmp_path / "made.h5ad", {"cell_type": "T Cell"}, 2)
    with pytest.raises(UsageError, match=r"1 of the cells of .* have the type 'Mast Cell' and 6 are needed"):
        report.check(tmp_path / "made.h5ad", {"cell_type": "Mast Cell"}, 6)
    with pytest.raises(InputError, match="share 0 gene names and 50 are needed"):
        report.check_genes(["nothing"], "bundle")


def test_checks_come_before_cells_are_written(
    cellscribe: Call, asked: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InstructModel, "about_prompts", lambda *_, **__: pytest.fail("cells were written"))
    told = cellscribe(*(("2" if one == "7" else one) for one in asked))
    assert told.exit_code == 2, told.stderr
    assert not (tmp_path / "made.h5ad").exists()


def test_means_are_compared_and_what_fails_leaves_the_cells(
    cellscribe: Call, asked: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth_report, "_SETTINGS", CompareSettings(same_types=True, has_map=False))
    told = cellscribe(*asked, "--means")
    assert told.exit_code == 0, told.stderr
    assert "7 generated cells against 16 real ones" in (tmp_path / "r.html").read_text()

    def fails(*_: object, **__: object) -> None:
        raise InputError("it cannot be compared; try again.")

    monkeypatch.setattr(truth_report, "compare_cells", fails)
    told = cellscribe(*asked)
    assert told.exit_code == 3
    assert f"wrote {tmp_path / 'made.h5ad'}, without the report" in told.stderr.replace("\n", "")


def test_options_that_clash_are_refused_before_cells_are_read(
    cellscribe: Call, instruct_bundle: Path, golden: GoldenInstructCell, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(golden.labels))
    told = cellscribe(
        "annotate", tmp_path / "none.h5ad", "--bundle", instruct_bundle, "-o", tmp_path / "x.csv", "--labels",
        tmp_path / "labels.txt", "--scores", "--in-words",
    )  # fmt: skip
    assert told.exit_code == 2, told.stderr
    assert "leave --scores or --in-words out" in " ".join(told.stderr.split())


def test_clusters_of_vectors_are_refused_before_cells_are_labelled(
    cellscribe: Call, instruct_bundle: Path, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InstructModel, "about_cells", lambda *_, **__: pytest.fail("cells were labelled"))
    out = tmp_path / "x.csv"
    told = cellscribe("annotate", real, "--bundle", instruct_bundle, "-o", out, "--majority-vote", "auto")
    assert told.exit_code == 2, told.stderr
    assert "clusters vectors, which this bundle's labels come without" in " ".join(told.stderr.split())
    assert not out.exists()
