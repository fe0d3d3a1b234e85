"""The golden InstructCell on every backend that runs without a GPU, with the tolerances of the fixture's README."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from instruct_bundles import CASES, GoldenCase, GoldenInstructCell, expressed

from cellscribe.engine.backends.base import host_array
from cellscribe.engine.backends.cpu import cpu_problem
from cellscribe.engine.backends.instruct import EncoderPrompt, InstructBackend, instruct_shapes
from cellscribe.engine.backends.onnxruntime_instruct import OnnxRuntimeInstruct
from cellscribe.engine.backends.onnxruntime_instruct_cuda import OnnxRuntimeInstructCuda
from cellscribe.engine.backends.sessions import Device
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.decode.scheduler import Text
from cellscribe.engine.errors import BundleError
from cellscribe.engine.instruct.prompts import PromptEncoder
from cellscribe.engine.instruct.writer import Asked, write_answers
from cellscribe.engine.text_writer import TextOptions
from cellscribe.engine.types import Sampling
from cellscribe.engine.verify_instruct import forced_logits, verify_instruct_bundle
from cellscribe.kernels.cpu_library import instruction_sets

Open = Callable[[Bundle], InstructBackend]


def _native(instruction_set: str) -> Open:
    def opened(bundle: Bundle) -> InstructBackend:
        from cellscribe.engine.backends.cpu.instruct import CpuInstruct

        if cpu_problem():
            pytest.skip(f"no native CPU library: {cpu_problem()}")
        return CpuInstruct(bundle, instruction_set=instruction_set)

    return opened


def _device(bundle: Bundle) -> InstructBackend:
    return OnnxRuntimeInstructCuda(bundle, Device("cpu"))


BACKENDS: dict[str, Open] = {
    "onnxruntime": OnnxRuntimeInstruct,
    "onnxruntime-cuda on the CPU": _device,
    **{one: _native(one) for one in instruction_sets()},
}


@pytest.fixture(scope="module")
def golden(shared: Path) -> GoldenInstructCell:
    return GoldenInstructCell(shared)


@pytest.fixture(scope="module")
def bundle(instruct_bundle: Path) -> Bundle:
    return open_bundle(instruct_bundle)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest, bundle: Bundle) -> InstructBackend:
    return BACKENDS[request.param](bundle)


def prompts_of(bundle: Bundle, case: GoldenCase, features: list[np.ndarray]) -> list[EncoderPrompt]:
    shapes = instruct_shapes(bundle)
    encoder, left = PromptEncoder(bundle.tokenizer, shapes.spec, shapes.tower.n_queries), iter(features)
    found = [encoder.encode(text, has_cell=has) for text, has in zip(case.prompts, case.has_cell, strict=True)]
    return [replace(one, features=next(left)) if has else one for one, has in zip(found, case.has_cell, strict=True)]


def answered(
    backend: InstructBackend, prompts: list[EncoderPrompt], num_slots: int = 4, *, most: int = 64
) -> dict[int, Text]:
    spec = instruct_shapes(backend.bundle).spec
    options = TextOptions(Sampling(), most, num_slots, frozenset(spec.eos_token_ids))
    asked = [Asked(i, i, one) for i, one in enumerate(prompts)]
    longest = max(len(one.tokens) for one in prompts)
    texts = write_answers(backend, spec, asked, longest, options, wants_signals=True)
    return {one.request.index: one for one in texts}


@pytest.mark.parametrize("name", CASES)
def test_prompts_are_the_golden_tokens(bundle: Bundle, golden: GoldenInstructCell, name: str) -> None:
    case = golden.case(name)
    queries = instruct_shapes(bundle).tower.n_queries
    for prompt, wanted in zip(prompts_of(bundle, case, case.cells), case.arrays["input_ids"], strict=True):
        narrow = prompt.tokens
        if prompt.start < len(narrow):
            narrow = np.delete(narrow, np.arange(prompt.start + 1, prompt.start + queries))
        np.testing.assert_array_equal(narrow, wanted[wanted != 0])


def test_cells_are_read_as_upstream_reads_them(backend: InstructBackend, golden: GoldenInstructCell) -> None:
    wanted = golden.arrays("qformer")
    found = list(backend.read_cells([expressed(row) for row in wanted["preprocessed"]]))
    np.testing.assert_allclose(np.stack(found), wanted["qformer_out"], atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_texts_and_conditions_are_the_golden_ones(
    backend: InstructBackend, golden: GoldenInstructCell, name: str
) -> None:
    case = golden.case(name)
    features = list(backend.read_cells(case.cells))
    prompts = prompts_of(backend.bundle, case, features)
    memories = backend.encode_prompts(prompts)
    for i, states in enumerate(memories):
        mask = case.arrays.get("merged_attention_mask", case.arrays["text_attention_mask"])[i] > 0
        np.testing.assert_allclose(host_array(states), case.arrays["encoder_last_hidden_state"][i][mask], atol=1e-4)
    valid = case.arrays["step_valid"]
    logits = forced_logits(backend, memories, case.arrays["generated_ids"][:, 1:])
    np.testing.assert_allclose(logits[valid], case.arrays["step_logits"][valid], atol=5e-4)
    texts = answered(backend, prompts)
    signal = instruct_shapes(backend.bundle).spec.signal_id
    for i in range(len(prompts)):
        ended = case.written(i)[-1]
        assert texts[i].token_ids == case.written(i)[:-1]
        assert (texts[i].condition is not None) is (ended == signal)
    for row, wanted in zip(case.arrays["signal_rows"], case.arrays.get("condition_masked", ()), strict=True):
        np.testing.assert_allclose(texts[row].condition, wanted, atol=1e-4)
    bare = zip(case.arrays["signal_rows"], case.arrays.get("condition_single_unpadded", ()), strict=True)
    for row, wanted in bare:  # upstream itself, on each prompt alone
        np.testing.assert_allclose(texts[row].condition, wanted, atol=1e-4)


def test_a_text_does_not_depend_on_its_neighbours(backend: InstructBackend, golden: GoldenInstructCell) -> None:
    case = golden.case("mixed")
    features = list(backend.read_cells(case.cells))
    prompts = prompts_of(backend.bundle, case, features)
    together = answered(backend, prompts)
    for num_slots in (1, 2):
        some = answered(backend, prompts, num_slots)
        assert all(some[i].token_ids == together[i].token_ids for i in range(len(prompts)))
        for i in range(len(prompts)):
            if together[i].condition is not None:
                np.testing.assert_allclose(some[i].condition, together[i].condition, atol=1e-5)
    for i, one in enumerate(prompts):
        assert answered(backend, [one])[0].token_ids == together[i].token_ids


@pytest.mark.parametrize("name", ["cvae", "cpcg", "mixed"])
def test_profiles_are_the_golden_ones(backend: InstructBackend, golden: GoldenInstructCell, name: str) -> None:
    wanted, at = golden.arrays(name), "" if name == "cvae" else "cvae_"
    condition = wanted["condition" if name == "cvae" else "condition_upstream"]
    found = backend.write_profiles(condition, wanted[f"{at}z"], wanted[f"{at}library"])
    np.testing.assert_allclose(found.rates, wanted[f"{at}px_rate"], rtol=1e-4)
    np.testing.assert_allclose(found.dropout, wanted[f"{at}px_dropout_logits"], atol=1e-4)


def test_a_lost_text_leaves_nothing_behind(backend: InstructBackend, golden: GoldenInstructCell) -> None:
    case = golden.case("single_annot")
    (features,) = backend.read_cells(case.cells)
    (good,) = prompts_of(backend.bundle, case, [features])
    bad = replace(good, features=np.full_like(features, np.nan))
    texts = answered(backend, [bad, good], num_slots=1)
    assert texts[0].finish_reason == "failed"
    assert texts[1].token_ids == case.written(0)[:-1]


def test_slots_refuse_a_prompt_that_is_too_long(backend: InstructBackend) -> None:
    spec, t5 = instruct_shapes(backend.bundle).spec, instruct_shapes(backend.bundle).t5
    slots = backend.open_instruct_slots(TextPlan(1, 1, 4, Sampling(), longest_memory=3))
    memory = np.zeros((4, t5.d_model), np.float32)
    with pytest.raises(ValueError, match="a prompt of 4 tokens in slots for 3"):
        slots.admit([Prompted(0, 0, np.array([spec.start_id]), memory=memory)])


def test_the_bundle_is_what_torch_was(instruct_bundle: Path, instruct_bundle_fp16: Path) -> None:
    for folder in (instruct_bundle, instruct_bundle_fp16):
        report = verify_instruct_bundle(open_bundle(folder), "onnxruntime-cpu")
        assert report.passed, report.lines()
        assert report.parity.tokens == 32
    if not cpu_problem():
        report = verify_instruct_bundle(open_bundle(instruct_bundle), "cpu")
        assert report.passed, report.lines()


def test_other_bundles_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="follows no instructions; choose one of the family instructcell"):
        OnnxRuntimeInstruct(open_bundle(tiny_bundle))
