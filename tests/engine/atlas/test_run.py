from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from atlas_cells import some_cells, write_cells

from cellscribe.engine.atlas import plan
from cellscribe.engine.atlas.digested import Digested
from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.inputs import find_inputs
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.manifest import Manifest, check_same
from cellscribe.engine.atlas.plan import look_through
from cellscribe.engine.atlas.run import Outcome, Watch, run_atlas
from cellscribe.engine.cells import open_cells
from cellscribe.engine.cells.parts import sample_rows
from cellscribe.engine.errors import BundleError, InputError, OutputError, UsageError
from cellscribe.engine.model import Model, load
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.engine.types import Sampling

EMBED = AtlasJob("embed", shard_cells=16)
DESCRIBE = AtlasJob("describe", shard_cells=8, max_new_tokens=32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    write_cells(folder / "a.h5ad", 40)
    write_cells(folder / "b.h5ad", 23, start=17)
    return folder


def table(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(one) for one in sorted((out / "shards").glob("*.parquet")))


def run(files: Path, out: Path, job: AtlasJob = EMBED, **options: Any) -> Outcome:
    return run_atlas([str(files)], out, job, **options)


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


def test_a_run_goes_on_where_it_stopped(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "whole")
    run(files, tmp_path / "out")
    out = tmp_path / "out"
    (out / "shards" / "shard-000001.parquet").unlink()
    (out / "shards" / "shard-000003.parquet").write_bytes(b"cut off")
    (out / "shards" / ".shard-000002.parquet.ab.part").write_bytes(b"cut off")
    with (out / "shards.jsonl").open("a") as file:
        file.write('{"number": 1, "fi')
    kept = (out / "shards" / "shard-000000.parquet").stat().st_mtime_ns
    seen: list[int] = []
    outcome = run(files, out, is_resumed=True, watch=Watch(on_plan=lambda plan, done: seen.append(done)))
    assert seen == [3]
    assert outcome.had_work
    assert outcome.snapshot.figures["cells"] == 63 + 32  # what was made in either call
    assert table(out).equals(table(tmp_path / "whole"))
    assert (out / "shards" / "shard-000000.parquet").stat().st_mtime_ns == kept
    assert not list((out / "shards").glob(".*"))
    assert not run(files, out, is_resumed=True).had_work


def test_another_run_is_not_gone_on_with(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(files, out)
    with pytest.raises(UsageError, match="add --resume"):
        run(files, out)
    with pytest.raises(UsageError, match="--shard-cells is 8 and was 16"):
        run(files, out, replace(EMBED, shard_cells=8), is_resumed=True)
    with pytest.raises(UsageError, match="resumed: --task is 'describe' and was 'embed'; ask for"):
        run(files, out, replace(EMBED, task="describe"), is_resumed=True)
    with pytest.raises(UsageError, match=r"b\.h5ad is not among the inputs"):
        run_atlas([str(files / "a.h5ad")], out, EMBED, is_resumed=True)
    assert len(table(out)) == 63


def test_a_changed_input_is_noticed(files: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cells"
    shutil.copytree(files, copy)
    run(copy, tmp_path / "out")
    write_cells(copy / "b.h5ad", 23, start=18)
    with pytest.raises(UsageError, match=r"b\.h5ad has changed"):
        run(copy, tmp_path / "out", is_resumed=True)


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_changed_value_is_noticed_wherever_it_stands(tmp_path: Path, is_finished: bool) -> None:
    copy, out = tmp_path / "cells", tmp_path / "out"
    copy.mkdir()
    cells = some_cells(100)
    cells.write_h5ad(copy / "a.h5ad")
    run(copy, out)
    if not is_finished:
        (out / "shards" / "shard-000003.parquet").unlink()
    row = next(one for one in range(100) if one not in sample_rows(100, n_runs=16, run=4))
    before = open_cells(copy / "a.h5ad").fingerprint()
    cells.X.data[cells.X.indptr[row] : cells.X.indptr[row + 1]] += 3
    cells.write_h5ad(copy / "a.h5ad")
    assert open_cells(copy / "a.h5ad").fingerprint() == before
    with pytest.raises(UsageError, match=r"a\.h5ad has changed"):
        run(copy, out, is_resumed=True)


def test_an_input_of_the_same_bytes_is_the_same_whenever_it_was_written(files: Path, tmp_path: Path) -> None:
    copy, out = tmp_path / "cells", tmp_path / "out"
    shutil.copytree(files, copy)
    run(copy, out)
    os.utime(copy / "a.h5ad")
    (out / "shards" / "shard-000001.parquet").unlink()
    outcome = run(copy, out, is_resumed=True)
    assert outcome.had_work
    assert not run(copy, out, is_resumed=True).had_work


def test_digests_are_made_once(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(files, tmp_path / "out")

    def never(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(plan, "digest_of", never)
    (tmp_path / "out" / "shards" / "shard-000001.parquet").unlink()
    assert run(files, tmp_path / "out", is_resumed=True).had_work


@pytest.mark.parametrize("workers", [1, 2])
def test_an_input_that_is_written_to_while_it_is_read_ends_the_run(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    copy = tmp_path / "cells"
    shutil.copytree(files, copy)
    remember = AtlasFolder.remember

    def and_write(self: AtlasFolder, record: Any) -> None:
        remember(self, record)
        os.utime(copy / ("a.h5ad" if record.file == 0 else "b.h5ad"), (1, 1))

    monkeypatch.setattr(AtlasFolder, "remember", and_write)
    with pytest.raises(InputError, match=r"[ab]\.h5ad has changed since the run began"):
        run(copy, tmp_path / "out", replace(EMBED, shard_cells=2), running=Running(workers))
    assert 0 < len(table(tmp_path / "out")) < 63


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


def test_bad_files_are_skipped_unless_strict(files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    shutil.copytree(files, folder)
    (folder / "a0.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + b"junk" * 100)
    outcome = run(folder, tmp_path / "out")
    assert [one.name for one in outcome.manifest.plan.skipped] == ["a0.h5ad"]
    assert len(table(tmp_path / "out")) == 63
    assert "a0.h5ad" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(InputError, match=r"a0\.h5ad"):
        run(folder, tmp_path / "strict", running=Running(is_strict=True))
    assert not (tmp_path / "strict").exists()


def test_a_file_that_goes_away_ends_the_run_and_leaves_what_is_done(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "cells"
    shutil.copytree(files, copy)
    write = AtlasFolder.write_shard

    def then_unmount(self: AtlasFolder, shard: Any, *others: Any) -> Any:
        if shard.number == 2 and (copy / "b.h5ad").exists():
            (copy / "b.h5ad").rename(tmp_path / "b.h5ad")
        return write(self, shard, *others)

    with monkeypatch.context() as patch:
        patch.setattr(AtlasFolder, "write_shard", then_unmount)
        with pytest.raises(InputError, match=r"b\.h5ad"):
            run(copy, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "progress.json").read_text())["state"] == "stopped"
    (tmp_path / "b.h5ad").rename(copy / "b.h5ad")
    run(copy, tmp_path / "out", is_resumed=True)
    run(copy, tmp_path / "whole")
    assert table(tmp_path / "out").equals(table(tmp_path / "whole"))


def test_a_full_disk_ends_the_run_and_leaves_what_is_done(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = Digested.write

    def full(self: Digested, content: bytes) -> int:
        writes.append(self.tell())
        if writes.count(0) > 2:  # within the third shard
            raise OSError(28, "No space left on device")
        return write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Digested, "write", full)
        with pytest.raises(OutputError, match="no space left"):
            run(files, tmp_path / "out")
    assert len(table(tmp_path / "out")) == 32
    run(files, tmp_path / "out", is_resumed=True)
    assert len(table(tmp_path / "out")) == 63


def test_folders_that_hold_something_else_are_left_alone(files: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="holds other files"):
        run(files, tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        run(files, tmp_path / "mine.txt")


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


def test_another_way_to_say_the_same_keeps_what_is_done(files: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "cells", tmp_path / "out"
    shutil.copytree(files, folder)
    torn = folder / "c.h5ad"
    torn.write_bytes((files / "a.h5ad").read_bytes()[:20_000])
    bundle = tmp_path / "bundle"
    shutil.copytree(packaged_bundle(), bundle)
    run(folder, out, replace(EMBED, bundle=str(bundle)))
    stamps = [one.stat().st_mtime_ns for one in sorted((out / "shards").glob("*.parquet"))]
    torn.write_bytes((files / "a.h5ad").read_bytes()[:30_000])
    relative = Path(os.path.relpath(bundle))
    assert not run(folder, out, replace(EMBED, bundle=str(relative)), is_resumed=True).had_work
    assert [one.stat().st_mtime_ns for one in sorted((out / "shards").glob("*.parquet"))] == stamps


def test_a_run_is_the_same_exactly_where_it_can_be_gone_on_with(files: Path, tmp_path: Path) -> None:
    manifest = run(files, tmp_path / "out").manifest
    changes: list[Manifest] = [
        replace(manifest, settings={**manifest.settings, name: "another"}) for name in manifest.settings
    ]
    changes += [
        replace(manifest, bundle={"name": name, "hash": digest})
        for name, digest in (("x", manifest.bundle["hash"]), ("demo", "0"))
    ]
    first = manifest.files[0]
    for one in (
        {"name": "z"},
        {"fingerprint": "0"},
        {"digest": "0"},
        {"stamp": "0"},
        {"chosen_key": "0"},
        {"genes_key": "0"},
        {"why": "torn"},
        {"n_cells": 3},
    ):
        changes.append(replace(manifest, files=(replace(first, **one), *manifest.files[1:])))
    changes.append(replace(manifest, versions={}))
    for changed in changes:
        try:
            check_same(manifest, changed)
        except UsageError:
            assert changed.run != manifest.run
        else:
            assert changed.run == manifest.run


def test_a_shard_with_flipped_bytes_is_made_again(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(files, out)
    run(files, tmp_path / "whole")
    for number, is_remembered in ((1, True), (3, False)):
        path = out / "shards" / f"shard-{number:06d}.parquet"
        content = bytearray(path.read_bytes())
        middle = len(content) // 3
        content[middle : middle + 40] = bytes(255 - one for one in content[middle : middle + 40])
        path.write_bytes(content)
        if not is_remembered:
            lines = (out / "shards.jsonl").read_text().splitlines()
            (out / "shards.jsonl").write_text("\n".join(x for x in lines if f'"number": {number}' not in x) + "\n")
    seen: list[int] = []
    run(files, out, is_resumed=True, watch=Watch(on_plan=lambda plan, done: seen.append(done)))
    assert seen == [3]
    assert table(out).equals(table(tmp_path / "whole"))


def test_what_is_remembered_of_shards_is_what_lies_on_the_disk(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(files, out)
    for one in outcome.records:
        content = (out / "shards" / f"shard-{one.number:06d}.parquet").read_bytes()
        assert (one.n_bytes, one.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert list(AtlasFolder(out).finished(outcome.manifest)) == [0, 1, 2, 3, 4]


def test_a_finished_run_keeps_its_figures(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "out")
    names = ("progress.json", "report.html", "manifest.json")
    before = [(tmp_path / "out" / name).read_bytes() for name in names]
    outcome = run(files, tmp_path / "out", is_resumed=True)
    assert (outcome.had_work, outcome.snapshot.cells, len(outcome.records)) == (False, 63, 5)
    assert [(tmp_path / "out" / name).read_bytes() for name in names] == before
