"""What a run over an atlas makes of its cells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from atlas_cells import some_cells, write_cells
from atlas_runs import DESCRIBE, EMBED, run, table

from cellscribe.engine.atlas.inputs import find_inputs
from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.plan import look_through
from cellscribe.engine.atlas.run import Watch
from cellscribe.engine.errors import BundleError, InputError
from cellscribe.engine.model import Model, load
from cellscribe.engine.types import Sampling


def test_vectors_are_those_of_embed(files: Path, tmp_path: Path) -> None:
    outcome = run(files, tmp_path / "out")
    found = table(tmp_path / "out")
    cells = ad.read_h5ad(files / "a.h5ad")
    model = load("demo")
    assert isinstance(model, Model)
    expected = model.embed(cells, copy=True)
    vectors = np.stack(found["embedding"].to_pylist()[:40])
    np.testing.assert_array_equal(vectors.astype(np.float32), expected)
    assert found["cell_id"].to_pylist()[:40] == list(cells.obs_names)
    assert found["row"].to_pylist() == [*range(40), *range(23)]
    assert found["file"].to_pylist() == ["a.h5ad"] * 40 + ["b.h5ad"] * 23
    assert set(found["status"].to_pylist()) == {"ok"}
    assert [one.n_cells for one in outcome.records] == [16, 16, 8, 16, 7]


def test_cells_that_are_fed_the_same_are_computed_once(files: Path, tmp_path: Path) -> None:
    outcome = run(files, tmp_path / "out")
    assert outcome.snapshot.shared == 23  # b.h5ad repeats cells of a.h5ad
    described = run(files, tmp_path / "texts", DESCRIBE)
    assert described.snapshot.shared == 23
    texts = table(tmp_path / "texts")
    first = dict(zip(texts["row"].to_pylist()[:40], texts["description"].to_pylist()[:40], strict=True))
    assert texts["description"].to_pylist()[40:] == [first[17 + i] for i in range(23)]


def test_texts_are_those_of_describe(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "out", DESCRIBE)
    found = table(tmp_path / "out").slice(0, 40)
    model = load("demo")
    assert isinstance(model, Model)
    expected = model.describe(ad.read_h5ad(files / "a.h5ad"), max_new_tokens=32, copy=True)
    assert found["description"].to_pylist() == expected["description"].tolist()
    assert found["top_genes"].to_pylist() == expected["top_genes"].tolist()
    assert found["num_tokens"].to_pylist() == expected["num_tokens"].tolist()
    np.testing.assert_allclose(found["mean_logprob"].to_numpy(), expected["mean_logprob"], rtol=1e-5)


def test_drawn_texts_are_not_shared(files: Path, tmp_path: Path) -> None:
    job = replace(DESCRIBE, sampling=Sampling(0.9, 0.7, 3), limit=48)
    assert run(files, tmp_path / "out", job).snapshot.shared == 0


def test_inputs_keep_their_order_however_long_each_takes_to_open(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    for i in range(6):
        write_cells(folder / f"{i}.h5ad", 6 - i, prefix=str(i))
    (folder / "1.h5ad").write_bytes(b"torn")
    seen: list[str] = []
    found = look_through(find_inputs([str(folder)]), EMBED, on_file=lambda done, total, name: seen.append(name))
    assert seen == [one.name for one in found.files] == [f"{i}.h5ad" for i in range(6)]
    assert [one.chosen for one in found.files] == [6, 0, 4, 3, 2, 1]
    few = look_through(find_inputs([str(folder)]), replace(EMBED, limit=8))
    assert [one.chosen for one in few.files] == [6, 0, 2]
    with pytest.raises(InputError, match=r"1\.h5ad is not an HDF5 file"):
        look_through(find_inputs([str(folder)]), EMBED, is_strict=True)


def test_cells_are_chosen(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "out", replace(EMBED, where='tissue == "liver" and depth > 10', limit=18))
    found = table(tmp_path / "out")
    assert found["row"].to_pylist() == [*range(11, 40, 2), 11, 13, 15]
    with pytest.raises(InputError, match="no cell of 2 inputs is one where"):
        run(files, tmp_path / "none", replace(EMBED, where='tissue == "moon"'))
    with pytest.raises(InputError, match="has no obs column"):
        run(files, tmp_path / "none", replace(EMBED, where='tisue == "moon"'))


def test_bad_cells_become_rows_with_a_reason(tmp_path: Path) -> None:
    cells = some_cells(40)
    cells.X.data[cells.X.indptr[3]] = np.nan
    cells.X.data[cells.X.indptr[20]] = -1.0
    empty = slice(cells.X.indptr[30], cells.X.indptr[31])
    cells.X.data[empty] = 0.0
    (tmp_path / "cells").mkdir()
    cells.write_h5ad(tmp_path / "cells" / "bad.h5ad")
    for job in (EMBED, DESCRIBE):
        out = tmp_path / job.task
        outcome = run(tmp_path / "cells", out, job)
        statuses = table(out)["status"].to_pylist()
        assert [i for i, one in enumerate(statuses) if one != "ok"] == [3, 20, 30]
        assert "nan for gene" in statuses[3]
        assert "-1 for gene" in statuses[20]
        assert "no counts" in statuses[30]
        assert outcome.n_failed == 3
        assert table(out)["embedding"].to_pylist()[3] is None


def test_good_cells_of_a_file_with_many_bad_ones_are_kept_where_its_values_are_named(tmp_path: Path) -> None:
    cells = some_cells(20)
    cells.X.data[cells.X.indptr[:8]] = np.nan
    (tmp_path / "cells").mkdir()
    cells.write_h5ad(tmp_path / "cells" / "bad.h5ad")
    with pytest.raises(InputError, match=r"8 of 20 cells \(40 %\)"):
        run(tmp_path / "cells", tmp_path / "auto")
    outcome = run(tmp_path / "cells", tmp_path / "out", replace(EMBED, values="counts"))
    assert (outcome.n_failed, len(table(tmp_path / "out"))) == (8, 20)


def test_a_bundle_that_cannot_do_the_task_is_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not annotate"):
        run(files, tmp_path / "out", AtlasJob("annotate"))
    assert not (tmp_path / "out").exists()


def test_progress_and_metrics_are_kept(files: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "atlas.prom"
    run(files, tmp_path / "out", watch=Watch(metrics=metrics))
    told = json.loads((tmp_path / "out" / "progress.json").read_text())
    assert (told["state"], told["cells_done"], told["cells_total"], told["shards_done"]) == ("finished", 63, 63, 5)
    assert "cellscribe_atlas_cells_done_total 63" in metrics.read_text()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["state"] == "finished"
    assert [one["number"] for one in manifest["finished"]] == [0, 1, 2, 3, 4]
    assert not [one for one in (tmp_path / "out").iterdir() if one.name.endswith(".part")]
