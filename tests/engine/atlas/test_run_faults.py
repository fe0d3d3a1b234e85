"""Inputs and disks that fail, or change, while a run over an atlas goes on."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from atlas_cells import some_cells, write_cells
from atlas_runs import EMBED, run, table

from cellscribe.engine.atlas.digested import Digested
from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.job import Running
from cellscribe.engine.cells import open_cells
from cellscribe.engine.cells.parts import sample_rows
from cellscribe.engine.errors import InputError, OutputError, UsageError


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
