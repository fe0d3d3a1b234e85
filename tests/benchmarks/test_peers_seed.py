"""The seed way in torch must write what the engine writes from the same weights: else its times mean nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

pytest.importorskip("torch", reason="the export extra is not installed")

from peers.seed_lingocell import SeedLingoCell  # noqa: E402
from peers.seed_scgpt import SeedScgpt  # noqa: E402

from cellscribe.engine.backends.base import SlotPlan  # noqa: E402
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu  # noqa: E402
from cellscribe.engine.bundle import open_bundle  # noqa: E402
from cellscribe.engine.cells import CellTokenizer, open_cells  # noqa: E402
from cellscribe.engine.decode.scheduler import Request, Scheduler  # noqa: E402
from cellscribe.engine.keyed import cell_key  # noqa: E402
from cellscribe.engine.packaged import packaged_cells  # noqa: E402
from cellscribe.engine.types import Sampling  # noqa: E402

CELLS, TOKENS = 5, 12


@pytest.fixture(scope="module")
def ours(tiny_bundle: Path) -> dict[str, object]:
    """Memory and greedy tokens of the engine's CPU backend, ends ignored."""
    bundle = open_bundle(tiny_bundle)
    backend = OnnxRuntimeCpu(bundle, threads=2)
    with open_cells(packaged_cells()) as source:
        tokenizer = CellTokenizer(bundle.manifest.cells, bundle.vocabulary, source)
        batch = next(iter(tokenizer.batches(rows=np.arange(CELLS), batch_cells=CELLS)))
    memory = backend.encode(batch).host_memory()
    slots = backend.open_slots(SlotPlan(CELLS, batch.genes.shape[1], TOKENS, Sampling()))
    scheduler = Scheduler(slots, CELLS, eos_ids=frozenset(), max_new_tokens=TOKENS)
    keys = [cell_key(name) for name in batch.cell_ids]
    requests = (Request(i, keys[i], memory[i], batch.mask[i]) for i in range(CELLS))
    tokens = {e.text.request.index: e.text.token_ids for e in scheduler.run(requests) if e.text.is_finished}
    return {"memory": memory, "cell_ids": list(batch.cell_ids), "tokens": [tokens[i] for i in range(CELLS)]}


@pytest.mark.parametrize("packed", [False, True])
def test_it_writes_the_tokens_of_the_engine(ours: dict[str, object], packed: bool) -> None:
    engine = SeedLingoCell()
    engine.do_open("lingocell-tiny", packed=packed)
    answer = engine.do_describe(CELLS, TOKENS)
    assert answer["cell_ids"] == ours["cell_ids"]
    assert answer["tokens"] == ours["tokens"]
    assert len(answer["step_seconds"]) == TOKENS - 1
    parts = answer["encode_seconds"] + answer["prefill_seconds"] + sum(answer["step_seconds"])
    assert parts <= answer["seconds"]


@pytest.mark.parametrize("fast_path", [False, True])
def test_the_encoder_in_torch_gives_the_memory_of_the_engine(
    ours: dict[str, object], fast_path: bool, tmp_path: Path
) -> None:
    engine = SeedScgpt()
    engine.do_open("lingocell-tiny", fast_path=fast_path)
    answer = engine.do_encode(CELLS, batch=2, save=str(tmp_path / "memory.npy"))
    assert len(answer["batch_seconds"]) == 3
    np.testing.assert_allclose(np.load(tmp_path / "memory.npy"), ours["memory"], atol=2e-5)


def test_more_cells_than_there_are_is_an_error() -> None:
    engine = SeedScgpt()
    engine.do_open("lingocell-tiny")
    with pytest.raises(ValueError, match="999 cells are asked for"):
        engine.do_encode(999)
