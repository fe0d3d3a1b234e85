"""The training of the packaged C2S model: what it may see, and that a short one gives a checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anndata as ad
import pytest

from cellscribe.engine.packaged import packaged_cells

pytest.importorskip("torch", reason="the export extra is not installed")
pytest.importorskip("scanpy", reason="the hvg extra is not installed")

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "train_c2s"
LOOK = """
import json, sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from lessons import Lessons, Plan, thinned
from sets import checked, load
split = load(Path("."), ["pbmc68k_reduced"])["pbmc68k_reduced"]
cut = checked(split.train)
small = Lessons.of([split.train.take(list(range(0, 560, 8)))], Plan())
once, again, other = small.epoch(3), small.epoch(3), small.epoch(4)
text = small.tokenizer.encode("Answer: CD19+ B cell, CD74 HLA-DRA NOGENE7")
print(json.dumps({
    "train": split.train.names, "held_out": split.held_out.names,
    "fit": cut.train.names, "left_out": cut.held_out.names,
    "same": all(a.tokens.equal(b.tokens) and a.weight.equal(b.weight) for a, b in zip(once, again)),
    "fresh": not all(a.tokens.equal(b.tokens) for a, b in zip(once, other)),
    "fewer": float(thinned(split.train, 0.5, 1).sum() / split.train.counts.sum()),
    "tokens": text.tokens, "back": small.tokenizer.decode(text.ids),
}))
"""


@pytest.mark.slow
def test_held_out_cells_are_never_learned_from() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK, str(FOLDER)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert set(said["held_out"]) == set(ad.read_h5ad(packaged_cells()).obs_names)
    assert (len(said["train"]), len(said["held_out"])) == (560, 140)
    assert not set(said["train"]) & set(said["held_out"])
    assert set(said["fit"]) | set(said["left_out"]) == set(said["train"])
    assert not set(said["fit"]) & set(said["left_out"])
    assert said["same"]
    assert said["fresh"]
    assert 0.7 < said["fewer"] < 0.8
    assert {"ĠCD74", "ĠHLA-DRA", "ĠCD19+"} <= set(said["tokens"])
    assert said["back"] == "Answer: CD19+ B cell, CD74 HLA-DRA NOGENE7"


@pytest.mark.slow
def test_a_short_training_gives_a_checkpoint_and_is_not_done_twice(tmp_path: Path) -> None:
    from cellscribe.export.checkpoint.c2s import read_habits
    from cellscribe.export.checkpoint.causal import read_causal

    few = ("epochs=1", "layers=1", "d_model=32", "num_genes=20", "fewest_genes=10")
    command = [sys.executable, str(FOLDER / "train.py"), "--data", ".", "--sets", "pbmc68k_reduced", "--set", *few]
    for turn in range(2):
        done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("1: types" in done.stdout) == (turn == 0)
    assert read_causal(tmp_path).config.d_model == 32
    genes, notes = read_habits(tmp_path)
    assert genes == 20
    assert "demonstration" in notes
