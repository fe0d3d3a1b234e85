"""Instructions followed through plans, against a TensorRT that computes with ONNX Runtime.

What this proves is the logic, not TensorRT: that needs the card.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_plans import make_instruct_plan, open_fake_instruct
from instruct_bundles import GoldenInstructCell

from cellscribe.engine.backends.base import host_array
from cellscribe.engine.backends.instruct import EncoderPrompt, ExpressedCell, instruct_shapes
from cellscribe.engine.backends.tensorrt.instruct import TensorRTInstruct
from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import PlanError
from cellscribe.engine.instruct.prompts import PromptEncoder
from cellscribe.engine.instruct.writer import Asked, write_answers
from cellscribe.engine.text_writer import TextOptions
from cellscribe.engine.types import Sampling


@pytest.fixture(scope="module")
def golden(shared: Path) -> GoldenInstructCell:
    return GoldenInstructCell(shared)


@pytest.fixture(scope="module")
def bundle(instruct_bundle: Path) -> Bundle:
    return open_bundle(instruct_bundle)


@pytest.fixture(scope="module")
def plans(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> TensorRTInstruct:
    return open_fake_instruct(bundle, make_instruct_plan(bundle, tmp_path_factory.mktemp("plans")))


def test_texts_and_conditions_are_the_golden_ones(
    bundle: Bundle, plans: TensorRTInstruct, golden: GoldenInstructCell
) -> None:
    case, shapes = golden.case("mixed"), instruct_shapes(bundle)
    encoder = PromptEncoder(bundle.tokenizer, shapes.spec, shapes.tower.n_queries)
    features = plans.read_cells(case.cells)
    prompts = [encoder.encode(text, has_cell=has) for text, has in zip(case.prompts, case.has_cell, strict=True)]
    prompts = [replace(one, features=next(features)) if one.start < len(one.tokens) else one for one in prompts]
    for i, states in enumerate(plans.encode_prompts(prompts)):
        mask = case.arrays["merged_attention_mask"][i] > 0
        np.testing.assert_allclose(host_array(states), case.arrays["encoder_last_hidden_state"][i][mask], atol=1e-4)
    options = TextOptions(Sampling(), 60, 3, frozenset(shapes.spec.eos_token_ids))
    asked = [Asked(i, i, one) for i, one in enumerate(prompts)]
    longest = max(len(one.tokens) for one in prompts)
    texts = {t.request.index: t for t in write_answers(plans, shapes.spec, asked, longest, options, wants_signals=True)}
    for i in range(len(prompts)):
        assert texts[i].token_ids == case.written(i)[:-1]
    for row, wanted in zip(case.arrays["signal_rows"], case.arrays["condition_masked"], strict=True):
        np.testing.assert_allclose(texts[row].condition, wanted, atol=1e-4)


def test_profiles_are_the_golden_ones(plans: TensorRTInstruct, golden: GoldenInstructCell) -> None:
    wanted = golden.arrays("cvae")
    found = plans.write_profiles(wanted["condition"], wanted["z"], wanted["library"])
    np.testing.assert_allclose(found.rates, wanted["px_rate"], rtol=1e-4)
    assert plans.device
    assert plans.precision == "fp32"


def test_what_a_plan_does_not_hold_is_one_sentence(plans: TensorRTInstruct) -> None:
    many = ExpressedCell(np.arange(501), np.ones(501, np.float32))
    with pytest.raises(PlanError, match=r"holds 500 expressed genes per cell and 501 are asked for; .*--genes 501"):
        next(plans.read_cells([many]))
    with pytest.raises(PlanError, match=r"holds 128 tokens per prompt and 129 are asked for; .*--prompt-tokens 129"):
        plans.encode_prompts([EncoderPrompt(np.ones(129, np.int64))])
    for changes, message in (
        ({"num_slots": 5}, "holds 4 slots and 5 are asked for"),
        ({"max_new_tokens": 65}, "holds 64 new tokens and 65 are asked for"),
        ({"longest_memory": 129}, "holds 128 tokens per prompt"),
    ):
        plan = replace(TextPlan(4, 1, 64, Sampling(), longest_memory=64), **changes)
        with pytest.raises(PlanError, match=message):
            plans.open_instruct_slots(plan)
