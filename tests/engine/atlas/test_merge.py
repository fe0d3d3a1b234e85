from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from atlas_cells import some_cells, write_cells

from cellscribe.engine.atlas.clusters import read_clusters, run_per_cluster
from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.merge import merge_into
from cellscribe.engine.atlas.run import run_atlas
from cellscribe.engine.errors import InputError, OutputError, UsageError
from cellscribe.engine.model import Model, load

DESCRIBE = AtlasJob("describe", shard_cells=8, max_new_tokens=32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    write_cells(folder / "a.h5ad", 20)
    write_cells(folder / "b.h5ad", 12, start=25, prefix="b")
    return folder


@pytest.fixture(scope="module")
def described(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    run_atlas([str(files)], out, DESCRIBE)
    return out


def test_an_input_gets_the_keys_that_describe_writes(files: Path, described: Path, tmp_path: Path) -> None:
    before = (files / "a.h5ad").read_bytes()
    joined = merge_into(described, files / "a.h5ad", tmp_path / "out.h5ad")
    assert (joined.n_joined, joined.n_cells, joined.n_elsewhere) == (20, 20, 0)
    assert (files / "a.h5ad").read_bytes() == before
    found, expected = ad.read_h5ad(tmp_path / "out.h5ad"), ad.read_h5ad(files / "a.h5ad")
    model = load("demo")
    assert isinstance(model, Model)
    model.describe(expected, max_new_tokens=32)
    for name in ("description", "status", "num_tokens", "mean_logprob", "grounding"):
        mine, other = found.obs[f"cellscribe_{name}"], expected.obs[f"cellscribe_{name}"]
        if name in ("mean_logprob", "grounding"):
            np.testing.assert_allclose(mine, other, rtol=1e-5)
        else:
            assert mine.tolist() == other.tolist()
    for name in ("X_cellscribe", "cellscribe_top_genes", "cellscribe_top_gene_weights"):
        np.testing.assert_allclose(found.obsm[name], expected.obsm[name], rtol=1e-5)
    assert found.uns["cellscribe"]["bundle"] == "demo"
    assert (found.X != expected.X).nnz == 0


def test_a_file_of_its_own_gets_the_cells_it_has(files: Path, described: Path, tmp_path: Path) -> None:
    both = ad.concat(
        [ad.read_h5ad(files / "b.h5ad")[::-1], some_cells(3, prefix="new"), ad.read_h5ad(files / "a.h5ad")[:7]]
    )
    both.write_h5ad(tmp_path / "both.h5ad")
    joined = merge_into(described, tmp_path / "both.h5ad", tmp_path / "both.h5ad")
    assert (joined.n_joined, joined.n_cells, joined.n_elsewhere) == (19, 22, 13)
    found = ad.read_h5ad(tmp_path / "both.h5ad")
    assert found.obs["cellscribe_status"].tolist() == ["ok"] * 12 + ["not run"] * 3 + ["ok"] * 7
    assert np.isnan(found.obsm["X_cellscribe"][12:15]).all()
    alone = load("demo").embed(ad.read_h5ad(files / "b.h5ad")[::-1].copy(), copy=True)
    np.testing.assert_allclose(found.obsm["X_cellscribe"][:12], alone, rtol=1e-6)


def test_names_have_to_tell_cells_apart(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    write_cells(folder / "a.h5ad", 6)
    write_cells(folder / "b.h5ad", 4)
    run_atlas([str(folder)], tmp_path / "out", AtlasJob("embed"))
    write_cells(tmp_path / "third.h5ad", 6)
    with pytest.raises(InputError, match="two results for the cell"):
        merge_into(tmp_path / "out", tmp_path / "third.h5ad", tmp_path / "joined.h5ad")
    assert merge_into(tmp_path / "out", folder / "b.h5ad", tmp_path / "joined.h5ad").n_joined == 4
    write_cells(tmp_path / "others.h5ad", 5, prefix="other")
    with pytest.raises(InputError, match="no cell of"):
        merge_into(tmp_path / "out", tmp_path / "others.h5ad", tmp_path / "joined.h5ad")


def test_an_unfinished_run_is_merged_only_where_that_is_wished(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_atlas([str(files / "a.h5ad")], out, AtlasJob("embed", shard_cells=8))
    (out / "shards" / "shard-000001.parquet").unlink()
    with pytest.raises(UsageError, match="lacks 1 shard; finish it"):
        merge_into(out, files / "a.h5ad", tmp_path / "out.h5ad")
    assert merge_into(out, files / "a.h5ad", tmp_path / "out.h5ad", is_partial=True).n_joined == 12


def test_what_is_no_run_is_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no run"):
        merge_into(tmp_path, files / "a.h5ad", tmp_path / "out.h5ad")
    (tmp_path / "manifest.json").write_text('{"format": "cellscribe-atlas", "version": 1')
    with pytest.raises(OutputError, match="is damaged"):
        merge_into(tmp_path, files / "a.h5ad", tmp_path / "out.h5ad")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty, so it is no .h5ad"),
        (b"no cells at all", "is not an HDF5 file, so it is no .h5ad"),
        (b"\x89HDF\r\n\x1a\n" + b"junk" * 100, "is damaged or not complete"),
        (None, "is damaged or not complete"),
    ],
)
def test_a_file_that_is_no_h5ad_is_a_sentence(
    files: Path, described: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    trash = tmp_path / "trash.h5ad"
    trash.write_bytes((files / "a.h5ad").read_bytes()[:20_000] if content is None else content)
    with pytest.raises(InputError, match=said):
        merge_into(described, trash, tmp_path / "out.h5ad")
    with pytest.raises(InputError, match="there is no file"):
        merge_into(described, tmp_path / "none.h5ad", tmp_path / "out.h5ad")
    assert not (tmp_path / "out.h5ad").exists()


def test_clusters_are_described_and_joined(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ([str(files)], out, DESCRIBE, Running(), "tissue")
    run_per_cluster(*arguments, cells_where="depth < 3")
    model = load("demo")
    assert isinstance(model, Model)
    both = ad.concat([ad.read_h5ad(files / "a.h5ad"), ad.read_h5ad(files / "b.h5ad")])
    expected = model.describe(both, pool="tissue", max_new_tokens=32, copy=True)
    merge_into(out, files / "a.h5ad", tmp_path / "joined.h5ad")
    found = ad.read_h5ad(tmp_path / "joined.h5ad")
    own = found.obs["depth"] < 3
    texts = found.obs[~own].groupby("tissue", observed=True)["cellscribe_description"].agg(set)
    assert {name: texts[name] for name in texts.index} == {
        name: {text} for name, text in expected["description"].items()
    }
    single = model.describe(ad.read_h5ad(files / "a.h5ad")[:3].copy(), max_new_tokens=32, copy=True)
    assert found.obs["cellscribe_description"][own].tolist() == single["description"].tolist()
    assert found.uns["cellscribe"]["pooled_by"] == "tissue"
    assert np.isfinite(found.obsm["X_cellscribe"]).all()
    assert (out / "cells" / "manifest.json").is_file()
    stamp = (out / "clusters.parquet").stat().st_mtime_ns
    run_per_cluster(*arguments, cells_where="depth < 3", is_resumed=True)
    assert (out / "clusters.parquet").stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="--per-cluster describes"):
        run_per_cluster([str(files)], tmp_path / "other", AtlasJob("embed"), Running(), "tissue")
    with pytest.raises(UsageError, match="--top-genes has no effect on texts of clusters"):
        run_per_cluster([str(files)], tmp_path / "other", replace(DESCRIBE, top_genes=3), Running(), "tissue")
    with pytest.raises(UsageError, match="--per-cluster is 'depth' and was 'tissue'"):
        run_per_cluster([str(files)], out, DESCRIBE, Running(), "depth", is_resumed=True)


@pytest.mark.parametrize("choice", [{"where": "tissue == 'blood' or depth < 4"}, {"limit": 12}])
def test_cells_that_were_not_in_the_run_get_no_text_of_a_cluster(
    files: Path, tmp_path: Path, choice: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    run_per_cluster([str(files / "a.h5ad")], out, replace(DESCRIBE, **choice), Running(), "tissue")
    joined = merge_into(out, files / "a.h5ad", tmp_path / "joined.h5ad")
    found = ad.read_h5ad(tmp_path / "joined.h5ad")
    has_vector = np.isfinite(found.obsm["X_cellscribe"]).all(axis=1)
    assert (joined.n_joined, joined.n_cells) == (12, 20)
    assert has_vector.sum() == 12
    assert found.obs["cellscribe_status"].tolist() == np.where(has_vector, "ok", "not run").tolist()
    assert ((found.obs["cellscribe_description"] != "") == has_vector).all()


def test_cells_that_failed_stay_failed_in_a_run_by_clusters_and_count_for_no_mean(tmp_path: Path) -> None:
    cells, bad = some_cells(40), [4, 5, 12]
    for row in bad:
        cells.X.data[cells.X.indptr[row]] = np.nan
    cells.write_h5ad(tmp_path / "a.h5ad")
    run_per_cluster([str(tmp_path / "a.h5ad")], tmp_path / "out", DESCRIBE, Running(), "tissue")
    clusters = read_clusters(AtlasFolder(tmp_path / "out"))
    assert clusters is not None
    assert dict(zip(clusters["cluster"], clusters["num_cells"], strict=True)) == {"blood": 18, "liver": 19}
    merge_into(tmp_path / "out", tmp_path / "a.h5ad", tmp_path / "joined.h5ad")
    found = ad.read_h5ad(tmp_path / "joined.h5ad").obs
    is_bad = np.isin(np.arange(40), bad)
    assert found["cellscribe_status"][is_bad].str.startswith("failed: it holds nan for gene").all()
    assert (found["cellscribe_status"][~is_bad] == "ok").all()
    assert ((found["cellscribe_description"] == "") == is_bad).all()


def test_labels_that_files_keep_as_texts_or_numbers_are_the_same_clusters(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    for name, labels in (("a", ["1", "2"]), ("b", [1, 2]), ("c", [1.0, np.nan]), ("d", [1.5, 2.0])):
        cells = some_cells(2, prefix=name)
        cells.obs["cluster"] = labels
        cells.write_h5ad(folder / f"{name}.h5ad")
    run_per_cluster([str(folder)], tmp_path / "out", DESCRIBE, Running(), "cluster")
    clusters = read_clusters(AtlasFolder(tmp_path / "out"))
    assert clusters is not None
    assert dict(zip(clusters["cluster"], clusters["num_cells"], strict=True)) == {"1": 3, "1.5": 1, "2": 3}
    assert merge_into(tmp_path / "out", folder / "c.h5ad", tmp_path / "c.h5ad").n_joined == 1
    assert ad.read_h5ad(tmp_path / "c.h5ad").obs["cellscribe_status"].tolist() == ["ok", "not run"]


def test_texts_of_single_cells_that_are_missing_are_no_matter_of_silence(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_per_cluster([str(files / "b.h5ad")], out, DESCRIBE, Running(), "tissue", cells_where="depth < 3")
    (out / "cells" / "shards" / "shard-000000.parquet").unlink()
    with pytest.raises(UsageError, match="cells lacks 1 shard"):
        merge_into(out, files / "b.h5ad", tmp_path / "joined.h5ad")
    assert merge_into(out, files / "b.h5ad", tmp_path / "joined.h5ad", is_partial=True).n_joined == 12


@pytest.mark.parametrize(
    ("column", "cells_where", "said"),
    [
        ("tisue", None, "has no obs column 'tisue'"),
        ("tissue", "depth <", "--cells-where is"),
        ("tissue", "depth > 99", "--cells-where|no cell of 2 inputs is one where"),
        ("tissue", "dept > 9", "has no obs column 'dept'"),
    ],
)
def test_what_clusters_are_made_of_is_checked_before_any_work(
    files: Path, tmp_path: Path, column: str, cells_where: str | None, said: str
) -> None:
    with pytest.raises((UsageError, InputError), match=said):
        run_per_cluster([str(files)], tmp_path / "out", DESCRIBE, Running(), column, cells_where=cells_where)
    assert not (tmp_path / "out").exists()


def test_top_genes_of_an_input_are_kept_whatever_the_other_inputs_are_read_by(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    raw = some_cells(6)
    raw.raw = raw
    raw = raw[:, ::2].copy()
    raw.X = -raw.X
    raw.write_h5ad(folder / "raw.h5ad")
    plain = some_cells(6, prefix="b")
    plain.raw = plain[:, :50].copy()
    plain.write_h5ad(folder / "plain.h5ad")
    run_atlas([str(folder)], tmp_path / "out", DESCRIBE)
    for name, of in (("raw", "raw.var"), ("plain", "var")):
        joined = merge_into(tmp_path / "out", folder / f"{name}.h5ad", tmp_path / f"{name}.h5ad")
        found = ad.read_h5ad(tmp_path / f"{name}.h5ad")
        assert joined.has_genes
        assert found.uns["cellscribe"]["top_genes_of"] == of
        assert (found.obsm["cellscribe_top_genes"][:, 0] >= 0).all()
    fewer = ad.read_h5ad(folder / "plain.h5ad")[:, 5:].copy()
    fewer.write_h5ad(tmp_path / "fewer.h5ad")
    joined = merge_into(tmp_path / "out", tmp_path / "fewer.h5ad", tmp_path / "joined.h5ad")
    assert "top genes are left out" in joined.sentence()
