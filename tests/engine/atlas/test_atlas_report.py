from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from atlas_cells import some_cells

from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.progress import Progress
from cellscribe.engine.atlas.report import write_atlas_report
from cellscribe.engine.atlas.run import run_atlas
from cellscribe.engine.errors import InputError


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    some = some_cells(20)
    some.X.data[some.X.indptr[3] : some.X.indptr[4]] = 0.0
    some.obs_names = ["<b>odd</b>" if i == 3 else name for i, name in enumerate(some.obs_names)]
    some.write_h5ad(folder / "a.h5ad")
    (folder / "bad.h5ad").write_bytes(b"no HDF5")
    return folder


def test_a_report_says_lengths_genes_by_group_failures_and_what_was_skipped(cells: Path, tmp_path: Path) -> None:
    job = AtlasJob("describe", shard_cells=8, max_new_tokens=32, report_by="tissue")
    run_atlas([str(cells)], tmp_path / "out", job)
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<title>19 cells described" in text
    assert "Lengths of texts" in text
    assert "Most attended genes" in text
    for group in ("blood", "liver"):
        assert re.search(rf"<td>{group}</td><td>\w+", text), group
    assert "it has no counts" in text
    assert "&lt;b&gt;odd&lt;/b&gt;" in text
    assert "bad.h5ad" in text
    assert "<b>odd" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_a_file_without_the_column_of_the_report_is_run_all_the_same(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    some_cells(8).write_h5ad(files / "with.h5ad")
    without = some_cells(8)
    del without.obs["tissue"]
    without.write_h5ad(files / "without.h5ad")
    job = AtlasJob("describe", shard_cells=8, max_new_tokens=32, report_by="tissue")
    done = run_atlas([str(files)], tmp_path / "out", job)
    assert (done.n_failed, done.manifest.plan.n_cells, done.manifest.plan.skipped) == (0, 16, ())
    assert re.search(r"<td>(blood|liver)</td>", (tmp_path / "out" / "report.html").read_text())
    with pytest.raises(InputError, match="has no obs column 'Tissue'"):
        run_atlas([str(files)], tmp_path / "other", replace(job, report_by="Tissue"))


def test_a_report_of_vectors_has_no_texts(cells: Path, tmp_path: Path) -> None:
    run_atlas([str(cells)], tmp_path / "out", replace(AtlasJob("embed"), shard_cells=8))
    text = (tmp_path / "out" / "report.html").read_text()
    assert "19 cells embedded" in text
    assert "Lengths of texts" not in text
    assert "missing" not in text
    assert "table.wide td { background: none;" in text  # the page's own tables have bars in their second cells


def test_a_report_counts_shards_that_are_gone(cells: Path, tmp_path: Path) -> None:
    done = run_atlas([str(cells)], tmp_path / "out", replace(AtlasJob("embed"), shard_cells=8))
    folder = AtlasFolder(tmp_path / "out")
    folder.shard_path(done.manifest.plan.shards[1]).unlink()
    write_atlas_report(folder, done.manifest, done.records, Progress(20, 3, {}))
    assert "1 of 3 shards is missing, and not counted here" in folder.report_path.read_text()
