"""Vectors of prompts: the same bits in any company, caches no larger than needed, and padding as upstream has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellscribe.engine.backends import onnxruntime_text
from cellscribe.engine.backends.cpu import cpu_problem
from cellscribe.engine.backends.cpu import text as native_text
from cellscribe.engine.backends.cpu.passes import Passes
from cellscribe.engine.backends.cpu.text import PIECE, CpuText
from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.backends.text import TextBackend
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import InputError, RoomError

Open = Callable[[Bundle], TextBackend]
Prompts = list[np.ndarray[Any, np.dtype[np.int64]]]


@pytest.fixture(params=["cpu", "onnxruntime-cpu"])
def open_text(request: pytest.FixtureRequest) -> Open:
    """Open a bundle on a backend."""
    if request.param == "cpu" and cpu_problem():
        pytest.skip(f"no native CPU library: {cpu_problem()}")
    kind = CpuText if request.param == "cpu" else OnnxRuntimeText
    return lambda bundle: kind(bundle, 2)


def prompts_of(lengths: tuple[int, ...], shared: int = 0) -> Prompts:
    rng = np.random.default_rng(0)
    first = rng.integers(1, 400, shared)
    return [np.concatenate((first, rng.integers(1, 400, length - shared)))[:length] for length in lengths]


@pytest.mark.parametrize("piece", [9, 64, None])
@pytest.mark.parametrize("shared_tokens", [0, 1, 13])
def test_a_vector_has_the_same_bits_alone_and_among_others(
    c2s_bundle: Path, open_text: Open, monkeypatch: pytest.MonkeyPatch, piece: int | None, shared_tokens: int
) -> None:
    if piece is not None:
        monkeypatch.setattr(onnxruntime_text, "PIECE", piece)
        monkeypatch.setattr(native_text, "PIECE", piece)
    backend = open_text(open_bundle(c2s_bundle))
    prompts = prompts_of((80, 14, 15, 79, 150, 40, 63, 64, 65, 90), shared_tokens)
    whole = backend.embed_prompts(prompts)
    for i, one in enumerate(prompts):
        np.testing.assert_array_equal(backend.embed_prompts([one])[0], whole[i])
    np.testing.assert_array_equal(backend.embed_prompts(prompts[::-1])[::-1], whole)
    np.testing.assert_array_equal(backend.embed_prompts([prompts[2], prompts[2]])[1], whole[2])


def test_prompts_of_one_token_and_none_at_all(c2s_bundle: Path, open_text: Open) -> None:
    backend = open_text(open_bundle(c2s_bundle))
    assert backend.embed_prompts([]).shape == (0, 64)
    prompts = [np.array([5]), np.array([5]), np.array([7, 8, 9]), np.array([6])]
    whole = backend.embed_prompts(prompts)
    for i, one in enumerate(prompts):
        np.testing.assert_array_equal(backend.embed_prompts([one])[0], whole[i])


def test_progress_counts_prompts(c2s_bundle: Path, open_text: Open) -> None:
    seen: list[int] = []
    open_text(open_bundle(c2s_bundle)).embed_prompts(prompts_of((30,) * 40), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 40
    assert len(seen) > 1


def test_short_prompts_run_together_in_small_caches(
    c2s_bundle: Path, native_library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, rows, room = CpuText(open_bundle(c2s_bundle), 2), list[int](), list[tuple[int, int]]()
    run, take = Passes.states, CpuText._passes
    monkeypatch.setattr(Passes, "states", lambda self, x, *more: rows.append(len(x)) or run(self, x, *more))
    monkeypatch.setattr(
        CpuText, "_passes", lambda self, decoder, *sizes: room.append(sizes) or take(self, decoder, *sizes)
    )
    lengths = (900, *range(40, 80))
    backend.embed_prompts(prompts_of(lengths, 20))
    assert sum(rows) == sum(lengths) - 40 * 20 + 20  # the first 20 positions once for each of two groups
    assert sorted(rows)[-3:] == [PIECE] * 3
    assert len(rows) == 2 + 2 + 4
    assert [capacity for _, capacity in room] == [900, 79]
    assert room[0][0] == 2
    assert 12 < room[1][0] < 20  # a full pass holds parts of so many prompts of 20 to 59 new rows


def test_less_room_means_shorter_passes_and_the_same_vectors(
    c2s_bundle: Path, native_library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, prompts = CpuText(open_bundle(c2s_bundle), 2), prompts_of((30, 31, 32, 33, 34, 35), 10)
    wanted, take = backend.embed_prompts(prompts), CpuText._passes

    def scarce(self: CpuText, decoder: Any, num_slots: int, capacity: int) -> Passes:
        if num_slots > most:
            raise RoomError("no room for so many slots.")
        return take(self, decoder, num_slots, capacity)

    monkeypatch.setattr(CpuText, "_passes", scarce)
    most = 3
    np.testing.assert_array_equal(backend.embed_prompts(prompts), wanted)
    most = 1
    with pytest.raises(RoomError, match="no room"):
        backend.embed_prompts(prompts)


def test_a_prompt_that_is_not_finite_harms_no_other(c2s_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, prompts = OnnxRuntimeText(open_bundle(c2s_bundle), 1), prompts_of((40, 39, 38, 37))
    prompts[0][3] = 444
    wanted, run = backend.embed_prompts(prompts), OnnxRuntimeText.run_states

    def poisoned(self: OnnxRuntimeText, tokens: Any, positions: Any, caches: Any, *more: Any) -> Any:
        states = run(self, tokens, positions, caches, *more)
        for row in np.flatnonzero((tokens == 444).any(1)):
            states[row] = np.nan
            for array in caches.values():
                array[row] = np.nan
        return states

    monkeypatch.setattr(OnnxRuntimeText, "run_states", poisoned)
    monkeypatch.setattr(onnxruntime_text, "PIECE", 30)  # one prompt a run, all with the same caches
    found = backend.embed_prompts(prompts)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1:], wanted[1:])


def padded(prompts: Prompts, pad_id: int) -> tuple[Any, Any]:
    """Tokens and mask of a batch, padded on the left."""
    import torch

    longest = max(map(len, prompts))
    tokens = [[pad_id] * (longest - len(one)) + one.tolist() for one in prompts]
    mask = [[0] * (longest - len(one)) + [1] * len(one) for one in prompts]
    return torch.tensor(tokens), torch.tensor(mask)


@pytest.mark.parametrize(("name", "which"), [("c2s_gpt2", "c2s_gpt2_bundle"), ("c2s_neox", "c2s_bundle")])
def test_padding_counts_as_in_the_original(request: pytest.FixtureRequest, shared: Path, name: str, which: str) -> None:
    """The original's plain mean over the states that transformers gives a padded batch by its default attention."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    folder = shared / "fixtures" / name
    said, values = json.loads((folder / "expected.json").read_text()), np.load(folder / "expected.npz")
    prompts, pad_id = [np.array(one["input_ids"]) for one in said["prompts"]], said["pad_token_id"]
    tokens, mask = padded(prompts, pad_id)
    assert tokens.tolist() == said["padded_input_ids"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        wanted = model.eval()(tokens, attention_mask=mask, output_hidden_states=True).hidden_states[-1].mean(1).numpy()
    bundle, seen = open_bundle(request.getfixturevalue(which)), list[int]()
    backend = OnnxRuntimeText(bundle, 2)
    found = backend.embed_padded(prompts, pad_id, seen.append)
    np.testing.assert_allclose(found, wanted, atol=5e-5, rtol=0)
    assert np.abs(found - values["embedding_masked_mean"]).max() > 0.5
    assert seen == [1, 2, 3, 4]
    # Without padding all definitions meet, those of the golden values too.
    longest = int(np.argmax([len(one) for one in prompts]))
    for golden in ("embedding_masked_mean", "info_plain_mean_padded_eager"):
        np.testing.assert_allclose(found[longest], values[golden][longest], atol=5e-5, rtol=0)
    alone = backend.embed_padded(prompts[:1], pad_id)[0]
    np.testing.assert_allclose(alone, values["embedding_masked_mean"][0], atol=5e-5, rtol=0)
    assert backend.embed_padded([], 0).shape == (0, bundle.manifest.decoder.d_model)  # type: ignore[union-attr]


def test_padding_of_a_gemma(gemma: tuple[Path, Any]) -> None:
    """Tokens have the states that transformers gives them; what padding adds is one vector for each padded position."""
    torch = pytest.importorskip("torch")
    folder, model = gemma
    prompts = prompts_of((1100, 30, 800))
    found = OnnxRuntimeText(open_bundle(folder), 2).embed_padded(prompts, 0)
    tokens, mask = padded(prompts, 0)
    with torch.no_grad():
        states = model(tokens, attention_mask=mask, output_hidden_states=True).hidden_states[-1].double()
    own = (states * mask[:, :, None]).sum(1).numpy()
    np.testing.assert_allclose(found[0], own[0] / 1100, atol=1e-4)
    each = [(found[i].astype(np.float64) * 1100 - own[i]) / (1100 - len(prompts[i])) for i in (1, 2)]
    np.testing.assert_allclose(each[0], each[1], atol=2e-3)
    assert np.abs(each[0]).max() > 0.1


def test_what_goes_beyond_the_context(c2s_gpt2_bundle: Path, open_text: Open) -> None:
    bundle = open_bundle(c2s_gpt2_bundle)
    assert np.isfinite(open_text(bundle).embed_prompts(prompts_of((256, 255)))).all()
    with pytest.raises(InputError, match="do not fit the 256 positions"):
        open_text(bundle).embed_prompts(prompts_of((257,)))
    with pytest.raises(InputError, match="do not fit the 256 positions"):
        OnnxRuntimeText(bundle, 1).embed_padded(prompts_of((257,)), 0)
