from __future__ import annotations

from dataclasses import replace

import pytest

from cellscribe.engine.bench.ceilings import Ceilings
from cellscribe.engine.bench.cost import Cost
from cellscribe.engine.bench.precision import PRECISIONS, precision_named
from cellscribe.engine.bench.work import Work
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape, EncoderShape
from cellscribe.engine.errors import BundleError, UsageError

P, S = 67, 1201


def lingocell(precision: str = "fp32", form: str = "latent", cache_bytes: int = 0) -> Cost:
    """lingocell-1.1b, of which every figure below was counted by hand."""
    return Cost(
        EncoderShape(512, 12, 8, 512),
        DecoderShape(32000, 2048, 22, 10, 32, 4, 64, 5632, 2048),
        CrossShape(form, 12, 32, 32, 64, 512, form == "materialised"),  # type: ignore[arg-type]
        P,
        precision_named(precision),
        cache_bytes,
    )


def test_weights_of_a_step() -> None:
    cost = lingocell()
    assert cost.layer_weights == 44_040_192
    assert cost.cross_weights == 8_388_608
    assert cost.absorbed_weights == 2_097_152
    assert cost.step_weights == 22 * 44_040_192 + 12 * (8_388_608 + 2_097_152) + 65_536_000 == 1_160_249_344


def test_bytes_of_a_step() -> None:
    memory, cache, row = 12 * 1201 * 512, 22 * 2 * 4 * 64 * 100, 2048
    one = 4 * (1_160_249_344 + memory + cache + row)
    assert lingocell().step(1, 100, S).bytes == one
    assert lingocell().step(8, 100, S).bytes == 4 * (1_160_249_344 + 8 * (memory + cache + row))


def test_operations_of_a_step() -> None:
    attention = 12 * 4 * 32 * 1201 * 512 + 22 * 4 * 32 * 64 * 100
    assert lingocell().step(3, 100, S).flops == 3 * (2 * 1_160_249_344 + attention)


def test_the_materialised_form_reads_keys_and_values_and_absorbs_nothing() -> None:
    cost = lingocell(form="materialised")
    assert cost.step_weights == 1_160_249_344 - 12 * 2_097_152
    read = 12 * 2 * 32 * 1201 * 64
    assert cost.step(1, 0, S).bytes == 4 * (cost.step_weights + read + 2048)
    assert cost.step(1, 0, S).flops == 2 * cost.step_weights + 12 * 4 * 32 * 1201 * 64


def test_memories_that_the_cache_holds_count_once() -> None:
    whole = 4 * 1201 * 512
    spared = lingocell().step(2, 100, S).bytes - lingocell(cache_bytes=2 * whole).step(2, 100, S).bytes
    assert spared == 2 * 11 * whole
    assert lingocell(cache_bytes=2 * whole - 1).step(2, 100, S) == lingocell().step(2, 100, S)


@pytest.mark.parametrize(
    ("precision", "number"), [("fp32", 4), ("fp16", 2), ("fp16-stored", 2), ("int8", 1.0625), ("int4", 0.5625)]
)
def test_weights_in_every_precision(precision: str, number: float) -> None:
    cost = lingocell(precision)
    outer = max(number, 1.0625)  # int4 keeps head and encoder in 8 bits
    assert cost.step(0, 100, S).bytes == pytest.approx(1_094_713_344 * number + 65_536_000 * outer)
    assert cost.encode(0, S).bytes == pytest.approx((lingocell().encoder_weights + S * 512) * outer)
    upper = 12 * 44_040_192 + 12 * (8_388_608 + 2 * 512 * 32 * 64)
    assert cost.prompt(0, S).bytes == pytest.approx(upper * number + 65_536_000 * outer)
    assert cost.step(4, 100, S).flops == lingocell().step(4, 100, S).flops
    cache = 2 if precision == "fp16" else 4
    memory = {"fp16": 2, "int8": 1.0625, "int4": 1.0625}.get(precision, 4)
    each = cost.step(1, 100, S).bytes - cost.step(0, 100, S).bytes
    assert each == pytest.approx(memory * 12 * 1201 * 512 + cache * 22 * 2 * 4 * 64 * 100 + number * 2048)
    prompts = cost.prompt(2, S).bytes - cost.prompt(1, S).bytes
    assert prompts == cache * (1201 * 512 + 22 * 2 * 4 * 64 * P)


def test_operations_outside_the_arithmetic_of_the_weights() -> None:
    """Counted by hand: attention to the caches, absorbed weights, and attention within the encoder."""
    caches = 22 * 4 * 32 * 64 * 100
    assert lingocell().step(3, 100, S).state_flops == 3 * (12 * 2 * 2 * 32 * 64 * 512 + caches)
    assert lingocell(form="materialised").step(3, 100, S).state_flops == 3 * caches
    assert lingocell().prompt(2, S).state_flops == 2 * 2 * 12 * 2048 * P * P
    assert lingocell().encode(3, S).state_flops == 3 * 12 * 4 * S * S * 512
    text, prompt, step = (lingocell().text(4, 96, S), lingocell().prompt(4, S), lingocell().step(4, P + 48, S))
    assert text.state_flops == pytest.approx(prompt.state_flops + 95 * step.state_flops)
    assert all(work.state_flops < work.flops for work in (text, prompt, step, lingocell().encode(1, S)))


def test_the_least_time_has_a_rate_for_each_arithmetic() -> None:
    work = Work(bytes=2e9, flops=5e9, state_flops=1e9)
    both = Ceilings(10e9, matrix=8e9, state_matrix=2e9)
    assert both.matrix_seconds(work) == 4 / 8 + 1 / 2
    assert both.seconds(work) == 1.0
    assert Ceilings(1e9, 8e9, 2e9).seconds(work) == 2.0
    assert Ceilings(10e9, 8e9).matrix_seconds(work) == Ceilings(10e9, 8e9, 8e9).matrix_seconds(work) == 5 / 8
    assert Ceilings(10e9, None, 2e9).matrix_seconds(work) == 0.0
    assert Ceilings(10e9, None, 2e9).seconds(work) == 0.2


def test_a_step_costs_what_its_tokens_in_use_cost() -> None:
    few, many = lingocell().step(8, 100, S), lingocell().step(8, 101, S)
    assert many.bytes - few.bytes == 8 * 4 * 22 * 2 * 4 * 64
    assert many.flops - few.flops == 8 * 22 * 4 * 2048


def test_a_prompt_leaves_out_the_layers_that_all_cells_share() -> None:
    work = lingocell().prompt(2, S)
    upper = 12 * 44_040_192 + 12 * (8_388_608 + 2 * 512 * 32 * 64) + 65_536_000
    assert work.bytes == 4 * (upper + 2 * (1201 * 512 + 22 * 2 * 4 * 64 * P))
    latent = 4 * P * 32 * S * 512 + 4 * P * 2048 * 512
    materialised = 4 * S * 512 * 32 * 64 + 4 * P * S * 2048
    products = 2 * P * 12 * (44_040_192 + 8_388_608)
    own = 2 * 12 * 2048 * P * P
    assert work.flops == 2 * (products + 12 * min(latent, materialised) + own + 2 * 65_536_000)
    whole = lingocell().with_whole_prompt().prompt(2, S)
    assert whole.bytes - work.bytes == 4 * 10 * 44_040_192
    assert whole.flops - work.flops == 2 * (2 * P * 10 * 44_040_192 + 2 * 10 * 2048 * P * P)


def test_the_encoder() -> None:
    weights = 12 * (4 * 512**2 + 2 * 512 * 512) + 512**2 + 512
    work = lingocell().encode(3, S)
    assert work.flops == 3 * (2 * S * weights + 12 * 4 * S * S * 512)
    assert work.bytes == 4 * (weights + S * 512) + 3 * (13 * S + 4 * S * 512)


def test_a_text_is_its_prompt_and_one_step_less_than_its_tokens() -> None:
    cost = lingocell()
    text, prompt = cost.text(4, 96, S), cost.prompt(4, S)
    step = cost.step(4, P + 48, S)
    assert text.bytes == pytest.approx(prompt.bytes + 95 * step.bytes)
    assert text.flops == pytest.approx(prompt.flops + 95 * step.flops)


def test_whether_the_weights_fit_into_the_cache() -> None:
    assert not lingocell(cache_bytes=32 * 2**20).fits_in_cache
    int4 = int(1_094_713_344 * 0.5625 + 65_536_000 * 1.0625)
    assert lingocell("int4", cache_bytes=int4).fits_in_cache
    assert not lingocell("int4", cache_bytes=int4 - 1).fits_in_cache
    encoder = replace(lingocell(cache_bytes=100_000_000), decoder=None, cross=None)
    assert encoder.fits_in_cache


def test_an_encoder_alone_has_no_steps() -> None:
    with pytest.raises(BundleError, match="encoder alone"):
        replace(lingocell(), decoder=None, cross=None).step(1, 1, 1)


def test_an_unknown_precision_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=", ".join(PRECISIONS)):
        precision_named("fp8")
