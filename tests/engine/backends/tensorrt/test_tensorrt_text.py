"""Texts after prompts of their own through plans, against a TensorRT that computes with ONNX Runtime.

What this proves is the logic, not TensorRT: that needs the card.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from causal_bundles import bundle_of
from fake_device import FakeDevice
from fake_plans import make_text_plan, open_fake_text

from cellscribe.engine.backends.base import NOT_FINITE
from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.backends.tensorrt import plan_facts
from cellscribe.engine.backends.tensorrt.layout import check_in_place
from cellscribe.engine.backends.tensorrt.plan import LARGEST_PIECE, piece_sizes, text_capacity
from cellscribe.engine.backends.tensorrt.text import TensorRTText, pick_text_plan
from cellscribe.engine.backends.tensorrt.text_parts import PromptPieces
from cellscribe.engine.backends.text import Prompted, TextBackend, TextPlan
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.decode.scheduler import Scheduler, Text, TextRequest
from cellscribe.engine.errors import BundleError, InputError, PlanError, RoomError, UsageError
from cellscribe.engine.types import Sampling
from cellscribe.engine.verify_text import measure_text_parity, text_failures

PROMPT, TOKENS, EOS = 90, 24, frozenset([2])
Backends = tuple[OnnxRuntimeText, TensorRTText]


@pytest.fixture(scope="module")
def bundle(c2s_bundle: Path) -> Bundle:
    return open_bundle(c2s_bundle)


@pytest.fixture(scope="module")
def backends(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Backends:
    """Both compute the golden GPT-NeoX in float32."""
    plan = make_text_plan(bundle, tmp_path_factory.mktemp("plans"), PROMPT, TOKENS, precision="fp32")
    return OnnxRuntimeText(bundle, 2), open_fake_text(bundle, plan)


def prompts() -> list[np.ndarray]:
    """Prompts that begin alike, of lengths around the sizes of pieces."""
    random = np.random.default_rng(0)
    return [np.append(np.arange(5, 17), random.integers(3, 440, n)) for n in (3, 20, 4, 36, 52, 53, 77)]


def write(
    backend: TextBackend,
    num_slots: int,
    sampling: Sampling,
    *,
    prefix: tuple[int, ...] = (),
    labels: LabelTrie | None = None,
    eos: frozenset[int] = EOS,
) -> dict[int, Text]:
    longest = max(map(len, labels.sequences)) if labels else 0
    plan = TextPlan(num_slots, PROMPT, longest or TOKENS, sampling, eos, prefix, longest)
    scheduler = Scheduler(backend.open_text_slots(plan), num_slots, eos_ids=eos, max_new_tokens=plan.max_new_tokens)
    requests = (TextRequest(i, 1000 + i, ids, labels) for i, ids in enumerate(prompts()))
    return {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, 0.7, 4)])
def test_texts_are_those_of_the_cpu(backends: Backends, sampling: Sampling) -> None:
    cpu, tensorrt = backends
    expected = write(cpu, 2, sampling)
    assert len({tuple(text.token_ids) for text in expected.values()}) == len(prompts())
    for num_slots, prefix in ((1, ()), (3, tuple(range(5, 17))), (7, tuple(prompts()[3].tolist()))):
        found = write(tensorrt, num_slots, sampling, prefix=prefix)
        for i, text in expected.items():
            assert (found[i].token_ids, found[i].finish_reason) == (text.token_ids, text.finish_reason)
            np.testing.assert_allclose(found[i].logprobs, text.logprobs, atol=1e-4)
    assert tensorrt.remarks == ()


def test_texts_that_share_slots_each_have_their_sampling(backends: Backends) -> None:
    own = [
        None,
        Sampling(0.9, 0.7, 4),
        Sampling(1.0, 1.3, 5),
        Sampling(),
        Sampling(0.9, 0.7, 6),
        None,
        Sampling(seed=2),
    ]
    _, tensorrt = backends
    slots = tensorrt.open_text_slots(TextPlan(3, PROMPT, TOKENS, Sampling(), EOS, mixes=True))
    scheduler = Scheduler(slots, 3, eos_ids=EOS, max_new_tokens=TOKENS)
    requests = (TextRequest(i, 1000 + i, ids, sampling=own[i]) for i, ids in enumerate(prompts()))
    found = {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}
    for sampling in set(own):
        alone = write(tensorrt, 3, sampling or Sampling())
        for i in (i for i, mine in enumerate(own) if mine == sampling):
            assert found[i].token_ids == alone[i].token_ids
            np.testing.assert_allclose(found[i].logprobs, alone[i].logprobs, atol=1e-5)
    with pytest.raises(UsageError, match="mixes=True"):
        tensorrt.open_text_slots(TextPlan(1, PROMPT, TOKENS, Sampling())).admit(
            [Prompted(0, 1, prompts()[0], sampling=Sampling(0.9, 0.7, 4))]
        )


def test_a_text_ends_at_an_end_token_while_the_next_step_is_under_way(backends: Backends) -> None:
    first = write(backends[0], 3, Sampling())
    eos = frozenset({first[0].token_ids[3], first[4].token_ids[9]})
    found = [write(backend, 3, Sampling(), eos=eos) for backend in backends]
    kept = [{i: (text.token_ids, text.finish_reason) for i, text in one.items()} for one in found]
    assert kept[0] == kept[1]
    assert "stop" in {reason for _, reason in kept[1].values()}


def test_labels_are_those_of_the_cpu(backends: Backends) -> None:
    """Tokens that must follow go along in runs of a few, some of them more than one run."""
    cpu, tensorrt = backends
    ids = ((5, 6, 7), (5, 8), (20, 21, 22, 23), (5, 6, 9, 10, *range(40, 57)), (30,), (30, 31, *range(60, 68)))
    labels = LabelTrie([f"label {i}" for i in range(len(ids))], ids, 2)
    expected = write(cpu, 2, Sampling(), labels=labels)
    for num_slots, prefix in ((1, ()), (3, tuple(range(5, 17))), (7, ())):
        found = write(tensorrt, num_slots, Sampling(), labels=labels, prefix=prefix)
        for i, text in expected.items():
            assert found[i].token_ids == text.token_ids
            np.testing.assert_allclose(found[i].logprobs, text.logprobs, atol=1e-4)


def test_layers_with_a_window_see_the_last_positions_alone(tmp_path: Path) -> None:
    """Gemma-2: a window shorter than prompts, heads that share keys, capped scores."""
    bundle = bundle_of("gemma2", "fp32", tmp_path / "bundle")
    plan = make_text_plan(bundle, tmp_path, 60, 30, precision="fp32")
    random = np.random.default_rng(0)
    requests = [TextRequest(i, i, random.integers(3, 99, n)) for i, n in enumerate((9, 30, 41))]
    ids = ((5, 6, 7), (5, 8, 9), (20, 21, 22, 23))
    labels = LabelTrie(list("abc"), ids, 2)
    for trie in (None, labels):
        found = []
        for backend in (OnnxRuntimeText(bundle, 2), open_fake_text(bundle, plan)):
            run = TextPlan(2, 41, 24, Sampling(), frozenset([2]), longest_label=5 if trie else 0)
            scheduler = Scheduler(backend.open_text_slots(run), 2, eos_ids=run.eos_ids, max_new_tokens=24)
            events = scheduler.run(replace(one, labels=trie) for one in requests)
            found.append({e.text.request.index: e.text.token_ids for e in events if e.text.is_finished})
        assert found[0] == found[1]
        assert len(set(map(tuple, found[0].values()))) > 1


def test_embeddings_and_logits_are_those_of_torch(backends: Backends, bundle: Bundle) -> None:
    cpu, tensorrt = backends
    kept = [np.arange(3, 3 + n) for n in (1, 15, 16, 17, 70, PROMPT + TOKENS)]
    np.testing.assert_allclose(tensorrt.embed_prompts(kept), cpu.embed_prompts(kept), atol=1e-5)
    assert tensorrt.embed_prompts([]).shape == (0, 64)
    home = tensorrt.plan.folder.parent.parent / "longer"
    plan = make_text_plan(bundle, home, 120, 8, precision="fp32")
    assert not text_failures(measure_text_parity(bundle, open_fake_text(bundle, plan), "reference"))


def test_a_row_forgets_a_text_that_was_not_finite(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    _, tensorrt = backends
    slots = tensorrt.open_text_slots(TextPlan(3, PROMPT, 4, Sampling()))
    texts = slots._texts
    kept = texts._prompts.logits.clone
    ids = prompts()
    (good,) = slots.admit([Prompted(i, i, ids[i]) for i in range(3)]).wait()
    texts._caches[:, 1] = float("nan")
    (after,) = slots.step(np.arange(3)).wait()
    assert after.token_ids[1] == NOT_FINITE
    assert (after.token_ids[[0, 2]] >= 0).all()
    (again,) = slots.admit([Prompted(1, 1, ids[1])]).wait()
    assert again.token_ids.tolist() == [good.token_ids[1]]
    assert kept().isfinite().all()


def test_pieces_are_of_few_sizes_and_end_within_the_caches(backends: Backends) -> None:
    _, tensorrt = backends
    capacity = tensorrt.plan.recipe.capacity
    sizes = piece_sizes(capacity)
    assert sizes == (128, 64, 32, 16)
    assert piece_sizes(text_capacity(5000, 100))[0] == LARGEST_PIECE
    runs = object.__new__(PromptPieces)
    runs._sizes = sizes
    for length in range(1, PROMPT + TOKENS + 1):
        for start in range(0, PROMPT + TOKENS - length + 1, 7):
            at = 0
            while at < length:
                size = runs._fitting(length - at, capacity - start - at)
                assert start + at + size <= capacity
                at += min(size, length - at)


def test_plans_that_are_too_small_say_so(backends: Backends, bundle: Bundle, tmp_path: Path) -> None:
    plans = [make_text_plan(bundle, tmp_path, PROMPT, TOKENS, slots=slots) for slots in (4, 16)]
    plans.append(make_text_plan(bundle, tmp_path, 200, TOKENS, slots=2))

    def run(num_slots: int, longest: int = PROMPT) -> TextPlan:
        return TextPlan(num_slots, longest, TOKENS, Sampling())

    assert [pick_text_plan(bundle, plans, run(n)).recipe.slots for n in (1, 3, 4, 5)] == [2, 4, 4, 16]
    assert pick_text_plan(bundle, plans, run(1, 150)) == plans[2]
    with pytest.raises(RoomError, match=r"holds 16 slots and 17 are asked for; .*--slots 17") as caught:
        pick_text_plan(bundle, plans, run(17))
    assert caught.value.num_fitting == 16
    with pytest.raises(PlanError, match=r"holds 224 positions and 424 are asked for; .*--prompt-tokens 400"):
        pick_text_plan(bundle, plans, run(1, 400))
    with pytest.raises(InputError, match="do not fit"):
        backends[1].open_text_slots(run(1, 5000))
    with pytest.raises(PlanError, match=r"does not update new_key\.0 in place"):
        check_in_place(plans[0], {}, bundle.manifest.decoder)
    device = FakeDevice(free_bytes=2_000_000)
    with pytest.raises(RoomError, match=r"free and 16 slots need .*--batch-size"):
        open_fake_text(
            bundle, make_text_plan(bundle, tmp_path / "other", slots=16, precision="fp32"), device=device
        ).open_text_slots(run(16))


def test_steps_that_cannot_be_captured_run_without(backends: Backends, bundle: Bundle) -> None:
    _, tensorrt = backends
    device = FakeDevice()
    device.fails_in_capture = True
    plain = open_fake_text(bundle, tensorrt.plan, device=device)
    expected = write(tensorrt, 3, Sampling())
    found = write(plain, 3, Sampling())
    assert {i: text.token_ids for i, text in found.items()} == {i: text.token_ids for i, text in expected.items()}
    assert "were not captured as a CUDA graph" in plain.remarks[0]


def test_doctor_names_the_plan_and_bundles_with_an_encoder_are_refused(backends: Backends, bundle: Bundle) -> None:
    plan = backends[1].plan
    facts = [text for label, text in plan_facts(bundle, plan.folder.parent) if label == "plan"]
    assert any("fp32, 12 slots, prompts of 90 and 24 new tokens" in text for text in facts)
    assert f"-t24-p90-cu13-{plan.recipe.hash[:8]}" in plan.folder.name
    assert replace(plan.recipe, genes=61).folder_name.count("-g61")
    with pytest.raises(BundleError, match="reads no sentences"):
        open_fake_text(replace(bundle, manifest=replace(bundle.manifest, style=None)), plan)
