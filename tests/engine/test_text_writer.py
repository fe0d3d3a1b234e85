"""Prompts of all lengths: caches no larger than needed, slots that there is room for, the edge of the context."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellscribe.engine.backends import onnxruntime_text
from cellscribe.engine.backends.cpu import text as native_text
from cellscribe.engine.backends.cpu.text import CpuText
from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.backends.text import Prompted, TextBackend, TextPlan
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.errors import InputError, RoomError
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_writer import TextOptions, write_texts
from cellscribe.engine.types import Sampling

Prompts = list[np.ndarray[Any, np.dtype[np.int64]]]
LABELS = LabelTrie(["a", "b", "c"], [(5, 6, 7), (5, 8), (20, 21, 22)], 0)


@dataclass
class Scarce:
    """A backend with room for a few slots, that keeps the plans it was given."""

    backend: TextBackend
    most: int = 1000
    num_fitting: int = 0
    plans: list[TextPlan] = field(default_factory=list)

    def open_text_slots(self, plan: TextPlan) -> Any:
        if plan.num_slots > self.most:
            raise RoomError(f"{plan.num_slots} slots are too many; choose fewer.", self.num_fitting)
        self.plans.append(plan)
        return self.backend.open_text_slots(plan)


def prompts_of(*lengths: int) -> Prompts:
    rng = np.random.default_rng(1)
    return [rng.integers(1, 390, length) for length in lengths]


def write(
    backend: Any, prompts: Prompts, count: int = 5, num_slots: int = 3, labels: LabelTrie | None = None, **more: Any
) -> list[list[int]]:
    options = TextOptions(Sampling(), count, num_slots, frozenset([0]), labels)
    found = {one.request.index: one for one in write_texts(backend, prompts, range(len(prompts)), options, **more)}
    assert all(one.finish_reason in ("stop", "length") for one in found.values())
    return [found[i].token_ids for i in range(len(prompts))]


def test_a_long_prompt_makes_no_other_cache_large(c2s_bundle: Path) -> None:
    lengths = (30, 900, 31, 500, 12, 33, 90, 44)
    prompts, backend = prompts_of(*lengths), Scarce(OnnxRuntimeText(open_bundle(c2s_bundle), 1))
    found = write(backend, prompts)
    taken = [plan.longest_prompt + plan.max_new_tokens for plan in backend.plans]
    assert taken == [905, 95, 38, 17]
    assert [plan.num_slots for plan in backend.plans] == [2, 2, 3, 1]
    for length in lengths:
        assert min(one for one in taken if one >= length + 5) <= 2 * (length + 5)
    assert found == [write(backend, [one])[0] for one in prompts]


def test_fewer_slots_where_there_is_no_room(c2s_bundle: Path) -> None:
    prompts, opened = prompts_of(*range(20, 28)), OnnxRuntimeText(open_bundle(c2s_bundle), 1)
    wanted, said = write(opened, prompts), list[str]()
    for most, num_fitting, taken in ((3, 3, 3), (3, 0, 2), (1, 0, 1)):
        backend = Scarce(opened, most, num_fitting)
        assert write(backend, prompts, num_slots=8, notice=said.append) == wanted
        assert [plan.num_slots for plan in backend.plans] == [taken]
        assert (
            said.pop() == f"{'8' if num_fitting else 2 * taken} slots are too many; choose fewer; went on with {taken}."
        )
        assert not said
    with pytest.raises(RoomError, match="1 slots are too many"):
        write(Scarce(opened, 0), prompts)


def test_what_there_was_no_room_for_is_told(c2s_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TextModel(open_bundle(c2s_bundle), 1, "onnxruntime-cpu")
    model.runtime = Scarce(model.runtime, 2)  # type: ignore[assignment]
    model.answers(["a", "b", "c"], ["CD3D", "LYZ", "NKG7"], max_new_tokens=2, batch_size=3)
    assert model.notice == "3 slots are too many; choose fewer; went on with 1."
    model.answers(["a"], ["CD3D"], max_new_tokens=2)
    assert model.notice == ""


@pytest.mark.parametrize("which", ["c2s_bundle", "c2s_gpt2_bundle"])
@pytest.mark.parametrize("kind", [CpuText, OnnxRuntimeText])
@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_prompt_that_just_fits_and_one_that_does_not(
    request: pytest.FixtureRequest, native_library: None, which: str, kind: Any, labels: LabelTrie | None
) -> None:
    bundle = open_bundle(request.getfixturevalue(which))
    most, backend = bundle.manifest.decoder.max_positions - 4, kind(bundle, 2)  # type: ignore[union-attr]
    prompts = prompts_of(most, most - 1, most, most - 2, most)
    found = write(backend, prompts, 4, 2, labels)
    assert found == [write(backend, [one], 4, 1, labels)[0] for one in prompts]
    if labels is not None:
        assert {tuple(one) for one in found} <= {(5, 6, 7), (5, 8), (20, 21, 22)}
    with pytest.raises(InputError, match=f"a prompt of {most + 1} tokens and 4 new ones do not fit the {most + 4} pos"):
        write(backend, prompts_of(most + 1), 4, 1, labels)


def test_the_edge_of_the_context_in_words(c2s_gpt2_bundle: Path) -> None:
    model = TextModel(open_bundle(c2s_gpt2_bundle), 1, "onnxruntime-cpu")
    text = "A" * 1000
    count = len(model.encode([text])[0])
    while count > 250:
        text = text[:-1]
        count = len(model.encode([text])[0])
    fits, beyond = (model.answers(["x"], [text], max_new_tokens=256 - count + more)[0] for more in (0, 1))
    assert fits.status == "ok"
    assert f"{count} tokens and {257 - count} new ones exceed the context of 256" in beyond.status


@pytest.mark.parametrize("kind", [CpuText, OnnxRuntimeText])
def test_the_edges_of_pieces_and_a_window_across_them(gemma: tuple[Path, Any], native_library: None, kind: Any) -> None:
    """Logits after a prompt and means of its states, against transformers."""
    torch = pytest.importorskip("torch")
    folder, model = gemma
    backend = kind(open_bundle(folder), 2)
    piece = native_text.PIECE if kind is CpuText else onnxruntime_text.PIECE
    prompts = prompts_of(piece - 1, piece, piece + 1, 2 * piece, 2 * piece + 1, 1100)
    vectors = backend.embed_prompts(prompts)
    for i, prompt in enumerate(prompts):
        slots = backend.open_text_slots(TextPlan(1, len(prompt), 1, Sampling()))
        slots.admit([Prompted(0, 0, prompt)]).wait()
        with torch.no_grad():
            wanted = model(torch.tensor([prompt]), output_hidden_states=True)
        np.testing.assert_allclose(slots.logits(1)[0], wanted.logits[0, -1].numpy(), atol=2e-3)
        np.testing.assert_allclose(vectors[i], wanted.hidden_states[-1][0].mean(0).numpy(), atol=1e-3)


@pytest.mark.parametrize("kind", [CpuText, pytest.param(OnnxRuntimeText, marks=pytest.mark.slow)])
def test_the_size_of_pieces_plays_no_part_in_a_prompt_of_8000_tokens(
    gemma: tuple[Path, Any], native_library: None, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    backend, prompt, found = kind(open_bundle(gemma[0]), 2), prompts_of(8000)[0], []
    module = native_text if kind is CpuText else onnxruntime_text
    for piece in (module.PIECE, 613):
        monkeypatch.setattr(module, "PIECE", piece)
        slots = backend.open_text_slots(TextPlan(1, len(prompt), 1, Sampling()))
        slots.admit([Prompted(0, 0, prompt)]).wait()
        found.append(slots.logits(1)[0].copy())
    assert found[0].std() > 0.1
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


@pytest.mark.slow
def test_a_prompt_of_8000_tokens(gemma: tuple[Path, Any], native_library: None) -> None:
    bundle, prompts = open_bundle(gemma[0]), prompts_of(8000, 60)
    native, other = CpuText(bundle, 2), OnnxRuntimeText(bundle, 2)
    assert write(native, prompts, 8) == write(other, prompts, 8)
    np.testing.assert_allclose(native.embed_prompts(prompts), other.embed_prompts(prompts), atol=1e-3)
    with pytest.raises(InputError, match="do not fit the 8192 positions"):
        write(native, prompts_of(8190))
