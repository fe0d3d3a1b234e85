"""``cellscribe atlas`` and ``merge`` as a user calls them: real processes, real signals."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

from cellscribe.cli.app import build
from cellscribe.engine.packaged import packaged_cells


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = ad.read_h5ad(packaged_cells())
    rows = np.arange(600) % whole.n_obs
    obs = pd.DataFrame({"kind": ["a", "b"] * 300}, index=[f"cell {i}" for i in range(600)])
    some = ad.AnnData(sp.csr_matrix(whole.X)[rows], obs=obs, var=pd.DataFrame(index=whole.var_names))
    path = tmp_path_factory.mktemp("cells") / "many.h5ad"
    some.write_h5ad(path)
    return path


def command(cells: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "cellscribe", "atlas", str(cells), "-o", str(out), "--task", "embed",
            "--shard-cells", "25", *options]  # fmt: skip


def table(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(one) for one in sorted((out / "shards").glob("*.parquet")))


def started(cells: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """Start a run and wait for its first shard."""
    process = subprocess.Popen(
        command(cells, out, *options),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a job in the background ignores
    )
    until = time.monotonic() + 60
    before = len(list((out / "shards").glob("*.parquet")))
    while len(list((out / "shards").glob("*.parquet"))) == before and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return process


def test_whatever_kills_a_run_it_ends_with_one_row_for_every_cell(cells: Path, tmp_path: Path) -> None:
    subprocess.run(command(cells, tmp_path / "whole"), check=True, capture_output=True)
    cut, draw, kills = tmp_path / "cut", random.Random(3), 0
    for attempt in range(3):
        options = (["--resume"] if attempt else []) + (["--workers", "2"] if attempt == 1 else [])
        process = started(cells, cut, *options)
        time.sleep(draw.uniform(0, 0.15))
        kills += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert kills >= 2
    subprocess.run(command(cells, cut, "--resume"), check=True, capture_output=True)
    assert table(cut).equals(table(tmp_path / "whole"))
    assert not [one for one in cut.rglob(".*") if one.name.endswith(".part")]


@pytest.mark.parametrize(
    ("which", "code", "workers"), [(signal.SIGINT, 130, "1"), (signal.SIGTERM, 143, "1"), (signal.SIGINT, 130, "2")]
)
def test_a_signal_ends_a_run_that_can_be_gone_on_with(
    cells: Path, tmp_path: Path, which: signal.Signals, code: int, workers: str
) -> None:
    process = started(cells, tmp_path / "out", "--workers", workers)
    process.send_signal(which)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "--resume" in said
    assert "Traceback" not in said
    assert not [one for one in (tmp_path / "out").rglob(".*") if one.name.endswith(".part")]
    done = subprocess.run(command(cells, tmp_path / "out", "--resume"), check=True, capture_output=True, text=True)
    assert "done before" in done.stderr
    assert len(table(tmp_path / "out")) == 600


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(build(), list(arguments))
    return result.exit_code, result.stderr


def test_a_run_says_what_it_did_and_merges(cells: Path, tmp_path: Path) -> None:
    out, joined = tmp_path / "out", tmp_path / "joined.h5ad"
    arguments = ["atlas", str(cells), "-o", str(out), "--task", "embed", "--where", "kind == 'b'", "--limit", "60"]
    code, said = run(*arguments)
    assert (code, "60 cells, 1 shard" in said) == (0, True), said
    code, said = run(*arguments)
    assert (code, "add --resume" in said) == (2, True), said
    code, said = run(*arguments, "--resume")
    assert (code, "nothing was left to do" in said) == (0, True), said
    code, said = run("merge", str(out), "--into", str(cells), "-o", str(joined))
    assert (code, "60 of 600 cells have a result" in said) == (0, True), said
    assert np.isfinite(ad.read_h5ad(joined).obsm["X_cellscribe"]).all(axis=1).sum() == 60


@pytest.mark.parametrize("name", ["shards/x.h5ad", "x.h5ad", "shards/../new/x.h5ad"])
@pytest.mark.parametrize("is_url", [False, True])
def test_merged_cells_are_not_written_among_the_shards(cells: Path, tmp_path: Path, name: str, is_url: bool) -> None:
    out = tmp_path / "out"
    (out / "shards").mkdir(parents=True)
    named = f"file://{out}" if is_url else str(out)
    code, said = run("merge", named, "--into", str(cells), "-o", str(out / name))
    assert code == 2
    assert "holds the run alone; choose another place with -o" in said
    assert not list((out / "shards").iterdir())


def test_failed_cells_and_skipped_files_give_another_exit_code(cells: Path, tmp_path: Path) -> None:
    some = ad.read_h5ad(cells)[:9].copy()
    some.X.data[some.X.indptr[2] : some.X.indptr[3]] = 0
    some.write_h5ad(tmp_path / "some.h5ad")
    code, said = run("atlas", str(tmp_path / "some.h5ad"), "-o", str(tmp_path / "out"), "--task", "embed")
    assert (code, "1 failed" in said) == (4, True), said
    (tmp_path / "torn.h5ad").write_bytes(cells.read_bytes()[:5000])
    code, said = run("atlas", f"{tmp_path}/*.h5ad", "-o", str(tmp_path / "both"), "--task", "embed")
    assert (code, "skipped torn.h5ad" in said) == (4, True), said
    code, said = run("atlas", f"{tmp_path}/*.h5ad", "-o", str(tmp_path / "strict"), "--task", "embed", "--strict")
    assert (code, "torn.h5ad" in said) == (3, True), said
    code, said = run("atlas", f"{tmp_path}/*.h5ad", "-o", str(tmp_path / "quiet"), "--task", "embed", "--quiet")
    assert (code, said.startswith("skipped torn.h5ad"), said.count("\n")) == (4, True, 1), said


def test_a_log_is_told_now_and_then_how_far_a_run_is(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellscribe.cli.atlasing._LINE_SECONDS", 0.0)
    code, said = run("atlas", str(cells), "-o", str(tmp_path / "out"), "--task", "embed", "--shard-cells", "100")
    assert code == 0, said
    assert re.search(r"[1-5]00 of 600 cells, [\d,]+ cells/s", said), said


def test_more_threads_than_make_sense_are_refused(cells: Path, tmp_path: Path) -> None:
    for command in (("atlas", str(cells), "-o", str(tmp_path / "out")), ("embed", str(cells))):
        code, said = run(*command, "--threads", "100000")
        assert (code, "1024" in said) == (2, True), said


def test_a_run_by_clusters_tells_of_its_parts(cells: Path, tmp_path: Path) -> None:
    asked = ["atlas", str(cells), "-o", str(tmp_path / "out"), "--limit", "30", "--per-cluster", "kind",
             "--max-new-tokens", "32", "--where", "kind != 'c'", "--cells-where"]  # fmt: skip
    code, said = run(*asked, "kind == 'a'")
    assert code == 0, said
    words = " ".join(said.split())
    assert "task embed, then describe each kind" in words
    assert "task describe single cells" in words
    assert "30 cells embedded, 1 shard" in words
    assert "; 2 clusters described; 30 cells described one by one, 1 shard" in words
    code, said = run(*asked, "kind == 'a'", "--resume")
    assert (code, "nothing was left to do" in said) == (0, True), said
    code, said = run(*asked, "kind == 'b'", "--resume")
    words = " ".join(said.split())
    assert (code, "--cells-where is \"kind == 'b'\" and was \"kind == 'a'\"" in words) == (2, True), said
    assert "--where is" not in said
    (tmp_path / "out" / "clusters.parquet").unlink()
    code, said = run(*asked[:-1], "--resume")
    assert (code, "2 clusters described; wrote" in " ".join(said.split())) == (0, True), said


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--where", "kind ="], 2, "no condition"),
        (["--where", "knid == 'a'"], 3, "did you mean 'kind'"),
        (["--cells-where", "kind == 'a'"], 2, "goes with --per-cluster"),
        (["--per-cluster", "kind"], 2, "--per-cluster describes"),
        (["--metrics", "here.txt"], 2, ".prom"),
        (["--labels", "none.txt"], 2, "--labels go with"),
        (["--top-genes", "3"], 2, "--top-genes has no effect on --task embed; leave it out."),
        (["--max-new-tokens", "40"], 2, "--max-new-tokens has no effect on --task embed"),
        (["--sampling", "top-p", "--top-p", "0.8"], 2, "--sampling has no effect on --task embed"),
        (["--batch-size", "1000"], 2, "--batch-size is 1000"),
        (["--temperature", "0.5"], 2, "add --sampling top-p"),
        (["--report-by", "knid"], 3, "did you mean 'kind'"),
    ],
)
def test_bad_options_are_a_sentence_each(cells: Path, tmp_path: Path, options: list[str], code: int, said: str) -> None:
    found, text = run("atlas", str(cells), "-o", str(tmp_path / "out"), "--task", "embed", *options)
    assert (found, said in " ".join(text.split())) == (code, True), text
    assert not (tmp_path / "out").exists()
