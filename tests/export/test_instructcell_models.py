"""The golden InstructCell and T5 in our torch modules, with the tolerances of the fixtures' READMEs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export extra is not installed")

from cellscribe.export.checkpoint.instructcell import InstructParts, read_instructcell  # noqa: E402
from cellscribe.export.checkpoint.t5 import read_t5  # noqa: E402
from cellscribe.export.models.t5 import T5, T5DecoderGraph  # noqa: E402

Arrays = dict[str, np.ndarray]
CAPACITY = 64


def arrays(path: Path) -> Arrays:
    return dict(np.load(path))


@pytest.fixture(scope="module")
def parts(shared: Path) -> InstructParts:
    return read_instructcell(shared / "fixtures" / "instructcell_model" / "model")


def _caches(t5: T5, rows: int) -> list[Any]:
    c = t5.config
    return [torch.zeros(rows, c.n_heads, CAPACITY, c.d_head) for _ in range(2 * c.n_decoder_layers)]


def _attended(t5: T5, memory: Any) -> list[Any]:
    return [part for layer in t5.decoder.blocks for part in layer.cross.keys_values(memory)]


@torch.no_grad()
def forced(t5: T5, memory: np.ndarray, mask: np.ndarray, tokens: np.ndarray, pieces: list[int]) -> tuple[Any, Any]:
    """Logits and states [B, T, ...] of given tokens, run in pieces over static caches."""
    graph, rows = T5DecoderGraph(t5), len(tokens)
    attended, caches = _attended(t5, torch.from_numpy(memory)), _caches(t5, rows)
    found, at = [], 0
    for count in pieces:
        positions = torch.arange(at, at + count).expand(rows, -1)
        seen = torch.arange(CAPACITY)[None, None] <= positions[:, :, None]
        some = torch.from_numpy(tokens[:, at : at + count])
        logits, states, _, *caches = graph(some, positions, seen, torch.from_numpy(mask) > 0, attended, caches)
        found.append((logits, states))
        at += count
    return tuple(torch.cat(one, 1).numpy() for one in zip(*found, strict=True))


def test_t5_gives_the_golden_values(shared: Path) -> None:
    folder = shared / "fixtures" / "t5_plain"
    given, wanted = arrays(folder / "inputs.npz"), arrays(folder / "expected.npz")
    t5 = read_t5(folder / "model")
    mask = given["attention_mask"] > 0
    with torch.no_grad():
        memory = t5.encode(t5.embedding(torch.from_numpy(given["input_ids"])), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(memory[mask], wanted["encoder_last_hidden_state"][mask], atol=1e-4)
    tokens, valid = wanted["generated_ids"][:, :-1], wanted["step_valid"]
    for pieces in ([tokens.shape[1]], [1] * tokens.shape[1], [5, tokens.shape[1] - 5]):
        logits, states = forced(t5, memory, mask, tokens, pieces)
        np.testing.assert_allclose(logits[valid], wanted["step_logits"][valid], atol=5e-4)
        np.testing.assert_array_equal(logits.argmax(-1)[valid], wanted["generated_ids"][:, 1:][valid])
        np.testing.assert_allclose(states[valid], wanted["decoder_last_hidden_state"][valid], atol=5e-4)


def test_the_tower_gives_the_golden_values(parts: InstructParts, shared: Path) -> None:
    wanted = arrays(shared / "fixtures" / "instructcell_model" / "qformer.npz")
    with torch.no_grad():
        memory = parts.tower.memory(torch.from_numpy(wanted["preprocessed"]))
        features = parts.tower(memory)
    kv = wanted["cell_encoder_out"]
    np.testing.assert_allclose(memory.numpy(), kv, atol=1e-5 * np.abs(kv).max())
    np.testing.assert_allclose(features.numpy(), wanted["qformer_out"], atol=1e-4)


@pytest.mark.parametrize("case", ["annot", "cpcg", "mixed", "single_annot"])
def test_texts_and_conditions_are_the_golden_ones(parts: InstructParts, shared: Path, case: str) -> None:
    wanted = arrays(shared / "fixtures" / "instructcell_model" / f"{case}.npz")
    mask = (wanted.get("merged_attention_mask", wanted["text_attention_mask"])) > 0
    with torch.no_grad():
        memory = parts.t5.encode(torch.from_numpy(wanted["merged_inputs_embeds"]), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(memory[mask], wanted["encoder_last_hidden_state"][mask], atol=1e-4)
    ids, valid = wanted["generated_ids"], wanted["step_valid"]
    logits, states = forced(parts.t5, memory, mask, ids, [ids.shape[1]])
    np.testing.assert_allclose(logits[:, :-1][valid], wanted["step_logits"][valid], atol=5e-4)
    np.testing.assert_array_equal(logits[:, :-1].argmax(-1)[valid], ids[:, 1:][valid])
    if "condition_masked" in wanted:
        found = states[wanted["signal_rows"], wanted["signal_pos"]]
        np.testing.assert_allclose(found, wanted["condition_masked"], atol=1e-4)


@pytest.mark.parametrize("case", ["cvae", "cpcg", "mixed"])
def test_profiles_are_the_golden_ones(parts: InstructParts, shared: Path, case: str) -> None:
    wanted = arrays(shared / "fixtures" / "instructcell_model" / f"{case}.npz")
    at = "" if case == "cvae" else "cvae_"
    condition = wanted["condition" if case == "cvae" else "condition_upstream"]
    given = [torch.from_numpy(one) for one in (condition, wanted[f"{at}z"], wanted[f"{at}library"])]
    assert parts.decoder is not None
    with torch.no_grad():
        rate, dropout, size = (one.numpy() for one in parts.decoder(*given))
    np.testing.assert_allclose(size, wanted[f"{at}size_factor"], atol=1e-4)
    np.testing.assert_allclose(rate, wanted[f"{at}px_rate"], rtol=1e-4)
    np.testing.assert_allclose(dropout, wanted[f"{at}px_dropout_logits"], atol=1e-4)
    np.testing.assert_allclose(parts.decoder.log_theta.exp().numpy(), wanted[f"{at}theta"], rtol=1e-5)
    mean, variance = parts.library
    priors = [wanted[f"{at}library_prior_{name}"].ravel()[0] for name in ("mean", "std")]
    np.testing.assert_allclose([mean, variance**0.5], priors, rtol=1e-5)


def test_special_tokens_are_those_of_the_checkpoint(parts: InstructParts) -> None:
    assert (parts.tokens.placeholder, parts.tokens.signal) == (399, 400)
