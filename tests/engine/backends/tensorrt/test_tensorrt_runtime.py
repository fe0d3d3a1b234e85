"""The runtime's logic, against a TensorRT that minds the rules and computes with ONNX Runtime.

What this proves is the logic, not TensorRT: that needs the card.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_device import FakeDevice, RuleBrokenError
from fake_plans import make_plan, open_fake

from cellscribe.engine.backends.base import NOT_FINITE, Admission, SlotPlan
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.backends.tensorrt import TensorRTBackend
from cellscribe.engine.backends.tensorrt import prompt as prompts
from cellscribe.engine.backends.tensorrt.engine import Run
from cellscribe.engine.backends.tensorrt.pieces import pieces
from cellscribe.engine.backends.tensorrt.state import choose, choose_each
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.decode.scheduler import Request, Scheduler, Text
from cellscribe.engine.errors import PlanError, RoomError, UsageError
from cellscribe.engine.types import Sampling
from cellscribe.engine.verify import teacher_forced

S, CELLS, TOKENS, EOS = 61, 7, 24, frozenset([2])
Backends = tuple[OnnxRuntimeCpu, TensorRTBackend]


@pytest.fixture(scope="module", params=["latent", "materialised"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    if request.param == "latent":
        return open_bundle(request.getfixturevalue("tiny_bundle_fp16"))
    from cellscribe.export.bundle import export_random

    folder = tmp_path_factory.mktemp("bundles") / "materialised"
    export_random("lingocell-tiny", folder, precision="fp16", cross_attention="materialised")
    return open_bundle(folder)


@pytest.fixture(scope="module")
def backends(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Backends:
    plan = make_plan(bundle, tmp_path_factory.mktemp("plans"), outputs=("evidence", "attention"))
    return OnnxRuntimeCpu(bundle, threads=2), open_fake(bundle, plan)


def memories() -> tuple[np.ndarray, np.ndarray]:
    memory = np.random.default_rng(0).normal(size=(CELLS, S, 64)).astype(np.float16)
    mask = np.arange(S)[None] < np.array([61, 61, 30, 1, 61, 12, 61])[:, None]
    return memory, mask


def write(
    backend: OnnxRuntimeCpu | TensorRTBackend, order: list[int], num_slots: int, sampling: Sampling
) -> dict[int, Text]:
    memory, mask = memories()
    slots = backend.open_slots(SlotPlan(num_slots, S, TOKENS, sampling, eos_ids=EOS))
    scheduler = Scheduler(slots, num_slots, eos_ids=EOS, max_new_tokens=TOKENS)
    requests: Iterator[Request] = (Request(i, 1000 + i, memory[i], mask[i]) for i in order)
    return {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, 0.7, 4), Sampling(1.0, 1.3, 5)])
def test_texts_are_those_of_the_cpu(backends: Backends, sampling: Sampling) -> None:
    cpu, tensorrt = backends
    expected = write(cpu, list(range(CELLS)), 2, sampling)
    assert len({tuple(text.token_ids) for text in expected.values()}) == CELLS
    for num_slots, order in ((2, [6, 5, 4, 3, 2, 1, 0]), (3, [2, 0, 4, 6, 1, 3, 5]), (7, list(range(CELLS)))):
        found = write(tensorrt, order, num_slots, sampling)
        for i in order:
            assert found[i].token_ids == expected[i].token_ids
            assert found[i].finish_reason == expected[i].finish_reason
            np.testing.assert_allclose(found[i].logprobs, expected[i].logprobs, atol=1e-4)
            np.testing.assert_allclose(found[i].evidence, expected[i].evidence, atol=1e-4)


DRAWN, HOT = Sampling(0.9, 0.7, 4), Sampling(1.0, 1.3, 5)


def test_texts_that_share_slots_each_have_their_sampling(backends: Backends) -> None:
    """And a text that is cancelled while its next steps are under way leaves its slot to the next."""
    _, tensorrt = backends
    memory, mask = memories()
    slots = tensorrt.open_slots(SlotPlan(3, S, TOKENS, Sampling(), eos_ids=EOS, mixes=True))
    scheduler = Scheduler(slots, 3, eos_ids=EOS, max_new_tokens=TOKENS)
    found: dict[int, Text] = {}
    own = [None, DRAWN, HOT, DRAWN, HOT, None, DRAWN]
    order = [4, 0, 6, 1, 2, 5, 3]
    for event in scheduler.run(Request(i, 1000 + i, memory[i], mask[i], sampling=own[i]) for i in order):
        text = found.setdefault(event.text.request.index, event.text)
        if text.request.index == 6 and len(text.token_ids) == 5:
            assert scheduler.cancel(6)
    assert [i for i in order if found[i].finish_reason == "cancelled"] == [6]
    for sampling in (None, DRAWN, HOT):
        mine = [i for i in range(CELLS) if own[i] == sampling]
        for i, alone in write(tensorrt, mine, 3, sampling or Sampling()).items():
            count = 5 if i == 6 else len(alone.token_ids)
            assert found[i].token_ids == alone.token_ids[:count]
            np.testing.assert_allclose(found[i].logprobs, alone.logprobs[:count], atol=1e-5)


def test_a_plan_that_mixes_none_refuses_a_sampling(backends: Backends) -> None:
    memory, mask = memories()
    slots = backends[1].open_slots(SlotPlan(2, S, TOKENS, Sampling()))
    with pytest.raises(UsageError, match="mixes=True"):
        slots.admit([Admission(0, 7, memory[0], mask[0], Sampling(1.0, 2.0, 1))])


def test_rows_are_chosen_each_its_own_way_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 3, (40, 333)).astype(np.float32))
    logits[7, 3] = torch.nan
    draws = torch.from_numpy(rng.random(40).astype(np.float32))
    ways = [Sampling(), DRAWN, HOT, Sampling(0.3, 2.0), Sampling(0.9, 0.01)]
    temperatures = torch.tensor([ways[i % 5].temperature for i in range(40)], dtype=torch.float32)
    top_ps = torch.tensor([ways[i % 5].top_p for i in range(40)], dtype=torch.float64)
    tokens, logprobs = choose_each(logits, temperatures, top_ps, draws)
    for i, way in enumerate(ways):
        expected = choose(logits[i::5], way, draws[i::5])
        assert torch.equal(tokens[i::5], expected[0])
        assert torch.equal(logprobs[i::5].nan_to_num(7.0), expected[1].nan_to_num(7.0))


def test_a_text_ends_at_an_end_token_while_the_next_step_is_under_way(backends: Backends) -> None:
    cpu, tensorrt = backends
    first = write(cpu, list(range(CELLS)), 7, Sampling())
    eos = frozenset({first[0].token_ids[3], first[4].token_ids[9]})
    memory, mask = memories()
    found = []
    for backend in (cpu, tensorrt):
        slots = backend.open_slots(SlotPlan(3, S, TOKENS, Sampling(), eos_ids=eos))
        scheduler = Scheduler(slots, 3, eos_ids=eos, max_new_tokens=TOKENS)
        requests = (Request(i, i, memory[i], mask[i]) for i in range(CELLS))
        events = [e.text for e in scheduler.run(requests) if e.text.is_finished]
        found.append({t.request.index: (t.token_ids, t.finish_reason) for t in events})
    assert found[0] == found[1]
    assert {reason for _, reason in found[1].values()} == {"stop", "length"}


def test_logits_of_given_tokens_are_those_of_the_cpu(backends: Backends, bundle: Bundle) -> None:
    memory, mask = memories()
    tokens = np.random.default_rng(1).integers(3, 600, (CELLS, 6))
    expected, found = (teacher_forced(bundle, backend, memory, mask, tokens) for backend in backends)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_padding_of_the_memory_is_never_read(backends: Backends) -> None:
    _, tensorrt = backends
    memory, mask = memories()
    poisoned = np.where(mask[:, :, None], memory, np.float16(np.nan))
    seen = []
    for given in (memory, poisoned):
        slots = tensorrt.open_slots(SlotPlan(CELLS, S, 4, Sampling()))
        slots.admit([Admission(i, i, given[i], mask[i]) for i in range(CELLS)]).wait()
        (chosen,) = slots.step(np.arange(CELLS)).wait()
        seen.append((slots.logits(CELLS), chosen.evidence))
    assert np.isfinite(seen[1][0]).all()
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert not seen[1][1][~mask].any()
    np.testing.assert_allclose(seen[1][1].sum(-1), 1, atol=1e-3)


def test_a_cell_whose_memory_is_not_finite_fails_alone(backends: Backends) -> None:
    _, tensorrt = backends
    memory, mask = memories()
    memory[1, 0, 0] = np.nan
    slots = tensorrt.open_slots(SlotPlan(3, S, 4, Sampling()))
    (chosen,) = slots.admit([Admission(i, i, memory[i], mask[i]) for i in range(3)]).wait()
    assert chosen.token_ids[1] == NOT_FINITE
    assert (chosen.token_ids[[0, 2]] >= 0).all()
    (after,) = slots.step(np.arange(3)).wait()
    assert after.slots.tolist() == [0, 2]
    (again,) = slots.admit([Admission(1, 1, memory[4], mask[4])]).wait()
    assert again.slots.tolist() == [1]
    assert again.token_ids[0] >= 0


def test_attention_of_layers_and_heads_averages_to_the_evidence(backends: Backends) -> None:
    _, tensorrt = backends
    memory, mask = memories()
    slots = tensorrt.open_slots(SlotPlan(3, S, 4, Sampling(), keep_attention=True))
    (chosen,) = slots.admit([Admission(i, i, memory[i], mask[i]) for i in range(3)]).wait()
    assert chosen.attention is not None
    assert chosen.attention.shape == (3, 2, 4, S)
    np.testing.assert_allclose(chosen.attention.mean((1, 2)), chosen.evidence, atol=1e-5)


def test_an_encoder_gives_the_memory_of_the_cpu(backends: Backends, bundle: Bundle) -> None:
    from cellscribe.engine.bundle.load import REFERENCE
    from cellscribe.engine.verify import _batch

    cpu, tensorrt = backends
    batch = _batch(bundle.tensors(REFERENCE))
    expected, found = cpu.encode(batch), tensorrt.encode(batch)
    real = batch.mask
    np.testing.assert_allclose(found.host_memory()[real], expected.host_memory()[real], atol=2e-3)
    np.testing.assert_allclose(found.cell, expected.cell, atol=2e-3)


def test_a_memory_on_the_device_is_taken_as_it_is(backends: Backends, bundle: Bundle) -> None:
    _, tensorrt = backends
    memory, mask = memories()
    chosen = []
    for given in (list(memory), [tensorrt._device.upload(one) for one in memory]):
        slots = tensorrt.open_slots(SlotPlan(CELLS, S, 4, Sampling()))
        (first,) = slots.admit([Admission(i, i, given[i], mask[i]) for i in range(CELLS)]).wait()
        chosen.append(first.token_ids.tolist())
    assert chosen[0] == chosen[1]


def test_slots_that_do_not_fit_are_refused_with_their_bytes(bundle: Bundle, tmp_path: Path) -> None:
    plan = make_plan(bundle, tmp_path)
    with pytest.raises(RoomError, match=r"free and 12 slots need [\d.,]+ MB .*--batch-size") as caught:
        open_fake(bundle, plan, device=FakeDevice(free_bytes=700_000)).open_slots(SlotPlan(12, S, TOKENS, Sampling()))
    assert 0 < caught.value.num_fitting < 12
    device = FakeDevice(free_bytes=700_000)
    open_fake(bundle, plan, device=device).open_slots(SlotPlan(caught.value.num_fitting, S, TOKENS, Sampling()))
    with pytest.raises(RoomError, match="not even one fits"):
        open_fake(bundle, plan, device=FakeDevice(free_bytes=1000)).open_slots(SlotPlan(2, S, TOKENS, Sampling()))


def test_the_rules_are_minded(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(bundle, tmp_path)
    slots = SlotPlan(2, S, TOKENS, Sampling())

    kept = prompts.bound

    def apart(parts: prompts.Parts, part: dict[str, Any]) -> dict[str, Any]:
        return {n: parts.device.upload(t.numpy()) if n.startswith("new_") else t for n, t in kept(parts, part).items()}

    run = open_fake(bundle, plan).open_slots(slots)._prompt._run
    with pytest.raises(PlanError, match=r"wants key\.0, which this release does not give"):
        run.bind({name: None for name in run._bindings if name != "key.0"})
    backend = open_fake(bundle, plan)
    with monkeypatch.context() as patch:
        patch.setattr(prompts, "bound", apart)
        with pytest.raises(RuleBrokenError, match="does not lie where"):
            backend.open_slots(slots)
    monkeypatch.setattr(Run, "bind", lambda self, tensors: None)
    with pytest.raises(RuleBrokenError, match="no memory for"):
        backend.open_slots(slots)


def test_neighbouring_slots_run_their_prompt_in_few_sizes() -> None:
    found = list(pieces(np.array([0, 1, 2, 5, 7, 8, 9, 10, 11, 12, 13, 14]), 4))
    assert found == [(0, 2), (2, 1), (5, 1), (7, 4), (11, 4)]
    assert list(pieces(np.array([], dtype=np.int64), 4)) == []
    assert list(pieces(np.arange(7), 3)) == [(0, 2), (2, 2), (4, 2), (6, 1)]
