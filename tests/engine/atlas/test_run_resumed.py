"""Runs over an atlas that go on where they stopped."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from atlas_runs import EMBED, run, table

from cellscribe.engine.atlas import plan
from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.manifest import Manifest, check_same
from cellscribe.engine.atlas.run import Watch
from cellscribe.engine.errors import UsageError
from cellscribe.engine.packaged import packaged_bundle


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
        run(files / "a.h5ad", out, is_resumed=True)
    assert len(table(out)) == 63


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
