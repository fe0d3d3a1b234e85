from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cellscribe.engine.errors import CellscribeError, InputError, OutputError, UsageError
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.attention import write_attention
from cellscribe.engine.output.files import check_output, check_outputs, check_run_output, write_run
from cellscribe.engine.output.run import Run


def test_parquet_reads_back(run: Run, cells_file: Path, tmp_path: Path) -> None:
    write_run(run, tmp_path / "out.parquet", cells_file)
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert list(frame.index) == ["cell-4", "cell-1", "cell-6"]
    assert list(frame.columns[-3:]) == ["top_genes", "top_gene_weights", "named_genes"]
    assert list(frame.loc["cell-6", "top_genes"]) == ["GENE2", "GENE5", "GENE11"]
    assert list(frame.loc["cell-1", "top_genes"]) == []
    notes = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[b"cellscribe"])
    assert notes["bundle"] == "tiny"
    assert notes["gene_report"]["share"] == 0.92


def test_jsonl_is_strict_json(run: Run, cells_file: Path, tmp_path: Path) -> None:
    write_run(run, tmp_path / "out.jsonl", cells_file)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [one["cell_id"] for one in lines] == ["cell-4", "cell-1", "cell-6"]
    assert lines[0]["named_genes"] == ["GENE3"]
    assert lines[1]["mean_logprob"] is None
    assert lines[1]["top_genes"] == []


def test_csv_joins_lists(run: Run, cells_file: Path, tmp_path: Path) -> None:
    write_run(run, tmp_path / "out.csv", cells_file)
    frame = pd.read_csv(tmp_path / "out.csv", index_col="cell_id")
    assert frame.loc["cell-6", "top_genes"] == "GENE2; GENE5; GENE11"
    assert frame.loc["cell-4", "top_gene_weights"] == "0.5; 0.25"


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_embeddings_alone_are_written(cells_file: Path, tmp_path: Path, suffix: str) -> None:
    run = Run(rows=np.arange(2), embeddings=np.ones((2, 2), np.float32), cell_ids=("x", "y"))
    write_run(run, tmp_path / f"out{suffix}", cells_file)
    assert "embedding_1" in (tmp_path / f"out{suffix}").read_bytes().decode("latin-1")


def test_pools_have_one_row_each(pools: Run, cells_file: Path, tmp_path: Path) -> None:
    write_run(pools, tmp_path / "out.csv", cells_file)
    assert list(pd.read_csv(tmp_path / "out.csv")["kind"]) == ["a", "c"]


def test_attention_opens_without_pickle(run: Run, tmp_path: Path) -> None:
    write_attention(run, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as archive:
        assert list(archive["cell_ids"]) == ["cell-4", "cell-6"]
        assert list(archive["genes"]) == ["<cls>", "GENE0", "GENE3"]
        assert archive["attention_1"].shape == (2, 4, 3, 3)
        assert archive["attention_1"].dtype == np.float16
        np.testing.assert_allclose(archive["attention_1"].sum(-1), 1, atol=2e-3)
        assert list(archive["token_ids_0"]) == [5, 6, 7]


@pytest.mark.parametrize("name", ["same.h5ad", "soft.h5ad", "hard.h5ad", "sub/../same.h5ad"])
def test_the_input_is_never_an_output(tmp_path: Path, name: str) -> None:
    source = tmp_path / "same.h5ad"
    source.write_bytes(b"cells")
    (tmp_path / "sub").mkdir()
    (tmp_path / "soft.h5ad").symlink_to(source)
    os.link(source, tmp_path / "hard.h5ad")
    with pytest.raises(UsageError, match="is the input itself"):
        check_output(tmp_path / name, source)
    assert source.read_bytes() == b"cells"


def test_an_output_behind_a_link_is_written_there(run: Run, cells_file: Path, tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    write_run(run, tmp_path / "link.csv", cells_file)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("cell_id,")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("out.txt", UsageError, "end the name in .h5ad, .parquet, .jsonl or .csv"),
        ("out", UsageError, "no ending"),
        ("missing/out.csv", OutputError, "does not exist; create it"),
        ("folder.csv", OutputError, "is not a file"),
        ("file.csv/out.csv", OutputError, "does not exist"),
    ],
)
def test_bad_outputs_are_said_before_any_work(
    tmp_path: Path, name: str, kind: type[CellscribeError], words: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file.csv").touch()
    with pytest.raises(kind, match=words) as caught:
        check_output(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.csv", "folder.csv"]


def test_an_unwritable_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cellscribe.engine.output.atomic.os.open", refused)
    with pytest.raises(OutputError, match="cannot be written \\(permission denied\\)"):
        check_output(tmp_path / "out.csv")


def test_one_name_for_two_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two outputs"):
        check_outputs([tmp_path / "a.csv", tmp_path / "." / "a.csv"])


def test_a_full_disk_leaves_nothing(tmp_path: Path, leftovers: Callable[[], list[str]]) -> None:
    def fill() -> None:
        with replacing(tmp_path / "out.csv") as part:
            part.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="no space left on device"):
        fill()
    assert leftovers() == []
    assert list(tmp_path.iterdir()) == []


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with replacing(tmp_path / "out.csv") as part:
            part.write_text("x")
    finally:
        os.umask(old)
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    script = (
        "import signal, sys, time; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job starts with it ignored
        "from cellscribe.cli.guard import guarded\n"
        "from cellscribe.engine.output.atomic import replacing\n"
        "import typer\n"
        "@guarded\n"
        "def work():\n"
        "    with replacing(Path(sys.argv[1])) as part:\n"
        "        part.write_text('half'); print('ready', flush=True); time.sleep(30)\n"
        "app = typer.Typer(pretty_exceptions_enable=False); app.command()(work); app(args=[])\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out.csv")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.1)
    child.send_signal(number)
    _, said = child.communicate(timeout=20)
    assert child.returncode == code
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_h5ad_output_needs_an_h5ad_input(run: Run, cells_file: Path, tmp_path: Path) -> None:
    odd, store, tenx = tmp_path / "odd.h5", tmp_path / "cells.zarr", tmp_path / "tenx.h5"
    shutil.copyfile(cells_file, odd)
    check_run_output(tmp_path / "out.h5ad", odd)  # AnnData under another name
    with h5py.File(tenx, "w") as file:
        for name in ("barcodes", "features/name"):
            file[f"matrix/{name}"] = np.array([b"one"])
        file["matrix/indptr"] = [0, 0]
    store.mkdir()
    for source in (tenx, store):
        with pytest.raises((UsageError, InputError), match=r"needs an .h5ad input.*\.parquet|no .zarr store") as caught:
            check_run_output(tmp_path / "out.h5ad", source)
        assert "\n" not in str(caught.value)
        check_run_output(tmp_path / "out.parquet", source)  # and nothing is said of it
    with pytest.raises(UsageError, match=r"needs an .h5ad input"):
        write_run(run, tmp_path / "out.h5ad", store)
    assert not (tmp_path / "out.h5ad").exists()
