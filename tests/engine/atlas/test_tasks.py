from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from atlas_cells import some_cells

import cellscribe as cs
from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.run import run_atlas
from cellscribe.engine.atlas.tasks import open_atlas_bundle
from cellscribe.engine.errors import BundleError, UsageError
from cellscribe.engine.labels_file import read_labels

LABELS = ["CD19+ B cell", "dendritic cell", "CD14+ monocyte"]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cells: the fourth holds NaN, the sixth nothing."""
    path = tmp_path_factory.mktemp("cells") / "a.h5ad"
    some = some_cells(12)
    some.X.data[some.X.indptr[5] : some.X.indptr[6]] = 0.0
    some.X.eliminate_zeros()
    some.X.data[some.X.indptr[3]] = np.nan
    some.write_h5ad(path)
    return path


@pytest.fixture
def good(cells: Path) -> ad.AnnData:
    return ad.read_h5ad(cells)[[i for i in range(12) if i not in (3, 5)]].copy()


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(LABELS))
    return path


def made(cells: Path, out: Path, job: AtlasJob) -> pa.Table:
    run_atlas([str(cells)], out, job)
    return pa.concat_tables(pq.read_table(one) for one in sorted((out / "shards").glob("*.parquet")))


def of_good(table: pa.Table, name: str) -> list[Any]:
    statuses = table["status"].to_pylist()
    assert [i for i, one in enumerate(statuses) if one != "ok"] == [3, 5]
    assert "nan for gene" in statuses[3]
    values = table[name].to_pylist()
    assert values[3] is None or not np.isfinite(values[3])
    return [one for i, one in enumerate(values) if i not in (3, 5)]


def test_labels_that_are_written(cells: Path, good: ad.AnnData, labels: Path, tmp_path: Path) -> None:
    job = AtlasJob("annotate", "demo-c2s", shard_cells=5, labels=labels)
    found = of_good(made(cells, tmp_path / "out", job), "label")
    frame = cs.load("demo-c2s").annotate(good, labels=read_labels(labels), copy=True)
    assert found == frame["label"].tolist()


def test_what_is_not_measured_of_sentences_is_told_so(cells: Path, tmp_path: Path) -> None:
    run_atlas([str(cells)], tmp_path / "out", AtlasJob("embed", "demo-c2s", shard_cells=5))
    told = json.loads((tmp_path / "out" / "progress.json").read_text())
    assert (told["padding_share"], told["idle_slot_share"], told["stage_utilisation"]["decode"]) == (None, None, None)
    assert told["stage_utilisation"]["model"] > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Not measured: read, tokenise, encode, decode, padding, idle slots." in page


def test_vectors_of_sentences(cells: Path, good: ad.AnnData, tmp_path: Path) -> None:
    found = of_good(made(cells, tmp_path / "out", AtlasJob("embed", "demo-c2s", shard_cells=5)), "embedding")
    np.testing.assert_array_equal(np.array(found, np.float32), cs.load("demo-c2s").embed(good, copy=True))


def test_labels_that_are_matched(
    cells: Path, good: ad.AnnData, labels: Path, tmp_path: Path, tiny_langcell: Path
) -> None:
    job = AtlasJob("annotate", str(tiny_langcell), shard_cells=5, labels=labels)
    table = made(cells, tmp_path / "out", job)
    frame = cs.load(tiny_langcell).annotate(good, labels=LABELS, copy=True)
    assert of_good(table, "label") == frame["label"].tolist()
    np.testing.assert_allclose(of_good(table, "score"), frame["score"], rtol=1e-5)
    assert "margin" in table.column_names


def test_vectors_of_ranks(cells: Path, good: ad.AnnData, tmp_path: Path, tiny_langcell: Path) -> None:
    found = of_good(made(cells, tmp_path / "out", AtlasJob("embed", str(tiny_langcell), shard_cells=5)), "embedding")
    np.testing.assert_allclose(np.array(found), cs.load(tiny_langcell).embed(good, copy=True), atol=1e-6)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (AtlasJob("describe", "demo-c2s"), "does not describe; choose --task embed or annotate"),
        (AtlasJob("annotate"), "does not annotate; choose --task describe or embed"),
        (AtlasJob("embed", genes=Path(__file__)), "leave --genes"),
        (AtlasJob("embed", organism="mouse"), "leave --organism"),
    ],
)
def test_what_does_not_go_together(job: AtlasJob, said: str) -> None:
    with pytest.raises((BundleError, UsageError), match=said):
        open_atlas_bundle(job)


def test_a_list_is_needed_where_labels_are_matched(tiny_langcell: Path) -> None:
    with pytest.raises(UsageError, match="give --labels"):
        open_atlas_bundle(AtlasJob("annotate", str(tiny_langcell)))
