"""Upstream's way in torch must answer as our modules do with the same weights, or its times mean nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

torch = pytest.importorskip("torch", reason="the export extra is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from peers.agreement import compare  # noqa: E402
from peers.instruct_cells import PROFILE_PROMPT, TYPE_PROMPT, counts, prompt_ids  # noqa: E402
from peers.seed_instructcell import SeedInstructCell  # noqa: E402
from peers.seed_parts import WEIGHTS_SEED  # noqa: E402

from cellscribe.engine.packaged import packaged_cells  # noqa: E402
from cellscribe.export.checkpoint.instructcell import InstructParts  # noqa: E402
from cellscribe.export.models.t5 import T5DecoderGraph  # noqa: E402
from cellscribe.export.random_instruct import random_instruct  # noqa: E402

SHAPE, CELLS, NEW_TOKENS = "instructcell-tiny", 10, 12


@pytest.fixture(scope="module")
def theirs() -> SeedInstructCell:
    engine = SeedInstructCell()
    assert engine.do_open(SHAPE)["precision"] == "fp32"
    return engine


@pytest.fixture(scope="module")
def parts() -> InstructParts:
    return random_instruct(SHAPE, WEIGHTS_SEED)


@pytest.fixture(scope="module")
def request_() -> dict[str, Any]:
    """A prompt of another length for every cell."""
    whole = prompt_ids(SHAPE, TYPE_PROMPT)
    prompts = [[*whole[: 5 + i], *whole[12:]] for i in range(CELLS)]
    return {"prompts": prompts, "cells_file": str(packaged_cells()), "cells": CELLS, "new_tokens": NEW_TOKENS}


@pytest.fixture(scope="module")
def single(theirs: SeedInstructCell, request_: dict[str, Any]) -> dict[str, Any]:
    return theirs.do_annotate(**request_, margins=True)


@torch.no_grad()
def greedy(parts: InstructParts, rows: Any, new_tokens: int) -> tuple[list[int], Any]:
    """Tokens that our modules write after embeddings [S, d], and the state of the signal after them."""
    c = parts.t5.config
    graph, mask = T5DecoderGraph(parts.t5), torch.ones(1, len(rows), dtype=torch.bool)
    memory = parts.t5.encode(rows[None], mask)
    attended = [part for layer in parts.t5.decoder.blocks for part in layer.cross.keys_values(memory)]
    caches = [torch.zeros(1, c.n_heads, new_tokens + 2, c.d_head) for _ in range(2 * c.n_decoder_layers)]
    chosen, token = [], 0
    for at in range(new_tokens + 2):
        seen = (torch.arange(new_tokens + 2) <= at)[None, None]
        given = torch.tensor([[token]]), torch.tensor([[at]])
        logits, states, _, *caches = graph(*given, seen, mask, attended, caches)
        token = int(logits.argmax()) if at < new_tokens else parts.tokens.signal
        chosen.append(token)
    return chosen[:new_tokens], states[0, 0]


@torch.no_grad()
def embedded(parts: InstructParts, prompt: list[int], cell: Any = None) -> Any:
    rows = parts.t5.embedding(torch.tensor(prompt))
    if cell is None:
        return rows
    values = np.log1p(cell / cell.sum() * 1e4)
    features = parts.tower(parts.tower.memory(torch.from_numpy(values)[None]))[0]
    at = prompt.index(parts.tokens.placeholder)
    return torch.cat((rows[:at], features, rows[at + 1 :]))


@pytest.mark.parametrize("packed", [False, True])
def test_batches_answer_as_single_prompts_do(
    theirs: SeedInstructCell, request_: dict[str, Any], single: dict[str, Any], packed: bool
) -> None:
    if packed:
        theirs = SeedInstructCell()
        theirs.do_open(SHAPE, packed=True)
    found = theirs.do_annotate(**request_, batch=8)
    assert compare(found["tokens"], single["tokens"], single["margins"]).is_same(1e-4)
    assert (len(single["step_seconds"]), len(found["step_seconds"])) == (CELLS * (NEW_TOKENS - 1), 2 * (NEW_TOKENS - 1))
    for one in (found, single):
        assert one["seconds"] >= one["prefill_seconds"] + sum(one["step_seconds"]) > 0


def test_answers_are_those_of_our_modules(
    parts: InstructParts, request_: dict[str, Any], single: dict[str, Any]
) -> None:
    cells = counts(request_["cells_file"], CELLS)
    rows = [embedded(parts, prompt, cell) for prompt, cell in zip(request_["prompts"], cells, strict=True)]
    found = [greedy(parts, one, NEW_TOKENS)[0] for one in rows]
    assert compare(found, single["tokens"], single["margins"]).is_same(1e-4)


def test_answers_depend_on_the_cell(theirs: SeedInstructCell, request_: dict[str, Any]) -> None:
    asked = {**request_, "prompts": [prompt_ids(SHAPE, TYPE_PROMPT)], "new_tokens": 2 * NEW_TOKENS}
    texts = theirs.do_annotate(**asked, batch=8)["tokens"]
    assert len({tuple(one) for one in texts}) > CELLS / 2
    assert np.mean([len(set(one)) for one in texts]) > NEW_TOKENS / 2
    assert not all(1 in one[:3] for one in texts)


def test_profiles_are_those_of_our_modules(theirs: SeedInstructCell, parts: InstructParts, tmp_path: Path) -> None:
    prompt = prompt_ids(SHAPE, PROFILE_PROMPT)
    answer = theirs.do_generate(prompt, 3, NEW_TOKENS, batch=2, save=str(tmp_path / "cells.npz"))
    found = dict(np.load(tmp_path / "cells.npz"))
    tokens, state = greedy(parts, embedded(parts, prompt), NEW_TOKENS)
    assert answer["tokens"] == [tokens] * 3
    np.testing.assert_allclose(found["condition"], np.tile(state.numpy(), (3, 1)), atol=1e-4)
    given = [torch.from_numpy(found[name]) for name in ("condition", "latent", "library")]
    assert parts.decoder is not None
    with torch.no_grad():
        rate, dropout, _ = (one.numpy() for one in parts.decoder(*given))
    np.testing.assert_allclose(found["rate"], rate, rtol=1e-4)
    np.testing.assert_allclose(found["dropout"], dropout, atol=1e-4)
    mean = (rate / (1 + np.exp(dropout))).sum(1)
    np.testing.assert_allclose(found["counts"].sum(1), mean, rtol=0.2)
    assert len(np.unique(found["latent"])) == found["latent"].size
    total = sum(answer[f"{part}_seconds"] for part in ("text", "condition", "profile"))
    assert answer["seconds"] == pytest.approx(total)
    again = theirs.do_generate(prompt, 3, NEW_TOKENS, batch=2, save=str(tmp_path / "again.npz"))
    assert again["tokens"] == answer["tokens"]
    np.testing.assert_array_equal(np.load(tmp_path / "again.npz")["counts"], found["counts"])


def test_prompts_are_as_many_as_cells(theirs: SeedInstructCell, request_: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="2 prompts for 10 cells"):
        theirs.do_annotate(**{**request_, "prompts": request_["prompts"][:2]})


def test_real_cells_have_the_genes() -> None:
    cells = counts(str(packaged_cells()), 3)
    assert cells.shape == (3, 18961)
    assert cells.sum(1).min() > 100
    with pytest.raises(ValueError, match="99999 cells are asked for"):
        counts(str(packaged_cells()), 99_999)


def test_prompts_are_of_a_sensible_length() -> None:
    for prompt in (TYPE_PROMPT, PROFILE_PROMPT):
        ids = prompt_ids(SHAPE, prompt)
        assert 60 <= len(ids) <= 90
        assert ids[-1] == 1
        assert 2 not in ids
    assert prompt_ids("instructcell", TYPE_PROMPT).count(32102) == 1
