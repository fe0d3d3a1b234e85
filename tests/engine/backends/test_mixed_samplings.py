"""Texts that share slots, each by a sampling of its own, are those that they are alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cellscribe.engine.backends.base import Backend, Encoded, SlotPlan
from cellscribe.engine.backends.cpu import CpuBackend, cpu_problem
from cellscribe.engine.backends.cpu.instruct import CpuInstruct
from cellscribe.engine.backends.cpu.text import CpuText
from cellscribe.engine.backends.instruct import instruct_shapes
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.backends.onnxruntime_cuda import OnnxRuntimeCuda
from cellscribe.engine.backends.onnxruntime_instruct import OnnxRuntimeInstruct
from cellscribe.engine.backends.onnxruntime_instruct_cuda import OnnxRuntimeInstructCuda
from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.backends.onnxruntime_text_cuda import OnnxRuntimeTextCuda
from cellscribe.engine.backends.sessions import CPU, Device
from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.decode.scheduler import AnyRequest, Request, Scheduler, Text, TextRequest
from cellscribe.engine.errors import UsageError
from cellscribe.engine.measure import real_cells
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.engine.types import Sampling

CELLS, TOKENS = 9, 40
DRAWN, HOT = Sampling(0.9, 0.8, 3), Sampling(1.0, 1.4, 2**62)
OWN = [None, DRAWN, Sampling(), HOT, replace(DRAWN, seed=4), Sampling(seed=9), DRAWN, replace(DRAWN, top_p=0.3), None]
NATIVE = pytest.mark.skipif(bool(cpu_problem()), reason=f"no native CPU library: {cpu_problem()}")
KINDS = ["onnxruntime-cpu", "onnxruntime-cuda", pytest.param("cpu", marks=NATIVE)]
Open = Callable[[Any], Any]


def written(scheduler: Scheduler, requests: Iterable[AnyRequest]) -> dict[int, Text]:
    return {e.text.request.index: e.text for e in scheduler.run(iter(requests)) if e.text.is_finished}


def same(a: Text, b: Text) -> bool:
    """Whether texts are the same to the last bit."""
    return (
        a.token_ids == b.token_ids
        and a.logprobs == b.logprobs
        and a.finish_reason == b.finish_reason
        and np.array_equal(a.evidence, b.evidence)
    )


class Cells:
    """The packaged demo on a backend."""

    def __init__(self, backend: Backend, batch: TokenBatch, encoded: Encoded, eos_ids: frozenset[int]) -> None:
        self.backend, self._batch, self._encoded, self.eos_ids = backend, batch, encoded, eos_ids

    def plan(self, num_slots: int, sampling: Sampling = DRAWN, *, mixes: bool = True) -> SlotPlan:
        genes = self._batch.mask.shape[1]
        return SlotPlan(num_slots, genes, TOKENS, sampling, eos_ids=self.eos_ids, mixes=mixes)

    def scheduler(self, plan: SlotPlan, between: Callable[[], None] = lambda: None) -> Scheduler:
        slots = self.backend.open_slots(plan)
        return Scheduler(slots, plan.num_slots, eos_ids=self.eos_ids, max_new_tokens=TOKENS, between=between)

    def request(self, i: int, sampling: Sampling | None = None) -> Request:
        return Request(i, 500 + i, self._encoded.memory[i], self._batch.mask[i], sampling=sampling)

    def alone(self, i: int, sampling: Sampling) -> Text:
        return written(self.scheduler(self.plan(1, sampling, mixes=False)), [self.request(i)])[i]


@pytest.fixture(scope="module", params=KINDS)
def cells(request: pytest.FixtureRequest) -> Cells:
    bundle = open_bundle(packaged_bundle())
    kinds: dict[str, Open] = {
        "cpu": lambda b: CpuBackend(b, threads=2),
        "onnxruntime-cpu": lambda b: OnnxRuntimeCpu(b, threads=2),
        "onnxruntime-cuda": lambda b: OnnxRuntimeCuda(b, CPU, threads=2),  # the same class on the CPU provider
    }
    backend = kinds[request.param](bundle)
    batch, _ = real_cells(bundle, None, CELLS)
    assert batch is not None
    assert bundle.manifest.prompt is not None
    return Cells(backend, batch, backend.encode(batch), frozenset(bundle.manifest.prompt.eos_token_ids))


@pytest.fixture(scope="module")
def alone(cells: Cells) -> list[Text]:
    return [cells.alone(i, OWN[i] or DRAWN) for i in range(CELLS)]


@pytest.mark.parametrize(("num_slots", "order"), [(1, range(CELLS)), (2, [8, 2, 1, 5, 0, 3, 7, 4, 6]), (5, range(9))])
def test_every_text_is_the_one_of_a_plan_with_its_sampling(
    cells: Cells, alone: list[Text], num_slots: int, order: Iterable[int]
) -> None:
    found = written(cells.scheduler(cells.plan(num_slots)), (cells.request(i, OWN[i]) for i in order))
    assert len({tuple(one.token_ids) for one in alone}) == CELLS
    assert [i for i in range(CELLS) if not same(found[i], alone[i])] == []


def test_a_draw_is_that_of_its_key_whoever_the_neighbours_are(cells: Cells) -> None:
    """One cell four times, under one key, beside itself and others."""
    same_cell = [replace(cells.request(1, sampling), index=i) for i, sampling in enumerate([DRAWN, HOT, DRAWN])]
    found = written(cells.scheduler(cells.plan(4)), [*same_cell, cells.request(3, Sampling())])
    assert same(found[0], found[2])
    assert found[0].token_ids != found[1].token_ids
    assert same(found[0], cells.alone(1, DRAWN))


def test_a_greedy_plan_serves_those_who_draw(cells: Cells, alone: list[Text]) -> None:
    scheduler = cells.scheduler(cells.plan(3, Sampling()))
    found = written(scheduler, (cells.request(i, OWN[i]) for i in range(1, 8)))
    assert all(same(found[i], alone[i]) for i in range(1, 8))


@pytest.mark.parametrize("own", [Sampling(), DRAWN])
def test_a_plan_that_mixes_none_refuses_a_sampling(cells: Cells, own: Sampling) -> None:
    slots = cells.backend.open_slots(cells.plan(2, mixes=False))
    with pytest.raises(UsageError, match=r"slot 1 .* of its own \((greedy|top-p 0.9.*)\).*mixes=True"):
        slots.admit([cells.request(0).admission(0), cells.request(1, own).admission(1)])


@pytest.mark.parametrize("round_", [2, 3, 12])
@pytest.mark.parametrize("num_slots", [1, 2])
def test_what_follows_a_cancelled_text_is_the_same_text(
    cells: Cells, alone: list[Text], num_slots: int, round_: int
) -> None:
    rounds = 0
    said: list[bool] = []

    def between() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == round_:
            said.append(scheduler.cancel(0))

    scheduler = cells.scheduler(cells.plan(num_slots), between)
    texts = {e.text.request.index: e.text for e in scheduler.run(cells.request(i, OWN[i]) for i in (0, 2, 1, 5))}
    assert said == [True]
    assert texts[0].finish_reason == "cancelled"
    assert texts[0].token_ids == alone[0].token_ids[: len(texts[0].token_ids)]
    assert len(texts[0].token_ids) < len(alone[0].token_ids)
    assert all(same(texts[i], alone[i]) for i in (2, 1, 5))


def test_a_text_is_cancelled_inside_the_tokens_of_one_step(cells: Cells) -> None:
    """What was guessed right comes several tokens at a time: nothing comes of it behind the cancellation."""
    scheduler = cells.scheduler(cells.plan(1))
    greedy = [cells.request(i, Sampling()) for i in (2, 2, 5)]
    requests = [replace(one, index=i) for i, one in enumerate(greedy)]
    texts: dict[int, Text] = {}
    for event in scheduler.run(iter(requests)):
        text = texts.setdefault(event.text.request.index, event.text)
        assert text.finish_reason != "cancelled"
        if text.request.index == 1 and len(text.token_ids) == 6:
            assert scheduler.cancel(1)
    assert texts[1].token_ids == texts[0].token_ids[:6]
    assert same(texts[2], cells.alone(5, Sampling()))


Prompts = tuple[Callable[[TextPlan], Any], TextPlan, list[TextRequest]]


def prompts(bundle: Bundle, kind: str) -> Prompts:
    kinds: dict[str, Open] = {
        "cpu": lambda b: CpuText(b, 2),
        "onnxruntime-cpu": lambda b: OnnxRuntimeText(b, 2),
        "onnxruntime-cuda": lambda b: OnnxRuntimeTextCuda(b, CPU, threads=2),
    }
    random = np.random.default_rng(0)
    tokens = [random.integers(3, 440, 12 + 5 * i) for i in range(CELLS)]
    requests = [TextRequest(i, 500 + i, tokens[i], sampling=own) for i, own in enumerate(OWN)]
    return kinds[kind](bundle).open_text_slots, TextPlan(1, 60, 16, DRAWN), requests


def instructions(bundle: Bundle, kind: str) -> Prompts:
    kinds: dict[str, Open] = {
        "cpu": CpuInstruct,
        "onnxruntime-cpu": OnnxRuntimeInstruct,
        "onnxruntime-cuda": lambda b: OnnxRuntimeInstructCuda(b, Device("cpu")),
    }
    width, random = instruct_shapes(bundle).t5.d_model, np.random.default_rng(0)
    memories = [random.normal(size=(5 + 2 * i, width)).astype(np.float32) for i in range(CELLS)]
    start = np.zeros(1, np.int64)
    requests = [TextRequest(i, 500 + i, start, memory=memories[i], sampling=own) for i, own in enumerate(OWN)]
    return kinds[kind](bundle).open_instruct_slots, TextPlan(1, 1, 16, DRAWN, longest_memory=40), requests


@pytest.fixture(scope="module", params=["c2s_bundle", "instruct_bundle"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return open_bundle(request.getfixturevalue(request.param))


@pytest.fixture(scope="module", params=KINDS)
def texts(request: pytest.FixtureRequest, bundle: Bundle) -> Prompts:
    return (instructions if bundle.manifest.style is None else prompts)(bundle, request.param)


def test_texts_after_prompts_are_those_of_plans_with_their_samplings(texts: Prompts) -> None:
    opened, plan, requests = texts

    def write(plan: TextPlan, requests: list[TextRequest]) -> dict[int, Text]:
        return written(Scheduler(opened(plan), plan.num_slots, eos_ids=frozenset(), max_new_tokens=16), requests)

    mixed = write(replace(plan, num_slots=4, mixes=True), requests)
    for one in requests:
        alone = write(replace(plan, sampling=one.sampling or DRAWN), [replace(one, sampling=None)])[one.index]
        assert same(mixed[one.index], alone), one.sampling


def test_prompts_with_a_sampling_of_their_own_need_a_plan_that_mixes(texts: Prompts) -> None:
    opened, plan, requests = texts
    with pytest.raises(UsageError, match="mixes=True"):
        opened(plan).admit([requests[1].admission(0)])
