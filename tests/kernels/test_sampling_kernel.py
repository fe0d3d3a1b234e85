"""The sampling kernel against the engine's own choice on the CPU, and the state of the slots it moves on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from placing import Runner, same_bits

from cellscribe.engine.decode.sampling import TOKEN_STREAM, choose
from cellscribe.engine.keyed import stream_keys, uniforms
from cellscribe.engine.types import Sampling
from cellscribe.kernels.parameters.sampling import Sample
from cellscribe.kernels.reference.sampling import NOT_FINITE, SILENT, SlotArrays, boundary_distance, log_probability

BAD_SHAPE, FP16, FP32 = 10001, 0, 1
PROMPT_LEN, MAX_NEW_TOKENS = 90, 96
SEED = 5


@dataclass(frozen=True)
class Case:
    """Logits of one kind; `pad` columns of NaN behind each row."""

    kind: str
    rows: int
    vocabulary: int
    temperature: float = 0.7
    top_p: float = 0.9
    half: bool = False
    pad: int = 0


KINDS = {
    "plain": lambda rng, shape: rng.normal(0, 3, shape),
    "wide": lambda rng, shape: rng.normal(0, 30, shape),
    "narrow": lambda rng, shape: rng.normal(1e4, 1e-2, shape),
    "flat": lambda rng, shape: np.full(shape, -2.5),
    "peaked": lambda rng, shape: rng.normal(0, 2, shape) + 25.0 * (np.arange(shape[1]) == shape[1] // 2),
    "tied": lambda rng, shape: rng.integers(0, 5, shape) * 0.75,
    "two values": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0.0, -1.0),
    "hardly different": lambda rng, shape: rng.integers(0, 4, shape) * 2.0**-52,
    "subnormal": lambda rng, shape: rng.integers(-3, 4, shape) * 1e-41,
    "signed zeros": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0.0, -0.0),
    "masked": lambda rng, shape: np.where(rng.random(shape) < 0.7, -np.inf, rng.normal(0, 3, shape)),
    "one left": lambda rng, shape: np.where(np.arange(shape[1]) == shape[1] - 1, 3.0, -np.inf) + np.zeros(shape),
    "far apart": lambda rng, shape: rng.choice([-3e38, 0.0, 3e38], shape),
}  # fmt: skip

SIZES = [(3, 60), (8, 40), (17, 40), (333, 40), (1024, 24), (4099, 6)]
SWEEP = [
    Case(kind, rows, vocabulary, temperature, top_p, pad=vocabulary % 2)
    for i, kind in enumerate(KINDS)
    for j, (vocabulary, rows) in enumerate(SIZES)
    for temperature, top_p in [[(0.7, 0.9), (1.0, 1.0)], [(0.01, 0.5), (1.3, 0.01)], [(10.0, 0.3), (1.0, 0.999)]][
        (i + j) % 3
    ]
]
LARGE = [
    Case("plain", 3, 32000),
    Case("plain", 2, 32000, half=True),
    Case("plain", 1, 32001, 1.0, 0.95, pad=2),
    Case("flat", 2, 32000, 1.0, 0.5),
    Case("tied", 2, 32000, half=True),
    Case("plain", 1, 50277, 1.0, 1.0),
]


def label(case: Case) -> str:
    return f"{case.kind}-{case.vocabulary}-{case.temperature}-{case.top_p}{'-half' * case.half}"


@dataclass(frozen=True)
class Given:
    logits: np.ndarray
    cells: np.ndarray
    state: SlotArrays
    eos_ids: np.ndarray


def inputs(case: Case, *, finished: float = 0.0) -> Given:
    rng = np.random.default_rng(case.vocabulary * 7 + len(case.kind))
    logits = KINDS[case.kind](rng, (case.rows, case.vocabulary)).astype(np.float16 if case.half else np.float32)
    state = SlotArrays(
        finished=(rng.random(case.rows) < finished).astype(np.uint8),
        lengths=rng.integers(0, MAX_NEW_TOKENS, case.rows).astype(np.int32),
        tokens=rng.integers(0, 99, case.rows),
        positions=rng.integers(0, 99, case.rows).astype(np.int32),
    )
    return Given(logits, rng.integers(0, 2**63, case.rows).astype(np.uint64), state, np.array([1, 2], np.int32))


def run(runner: Runner, case: Case, given: Given, own: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    logits = np.full((case.rows, case.vocabulary + case.pad), np.nan, given.logits.dtype)
    logits[:, : case.vocabulary] = given.logits
    p = Sample(
        num_slots=case.rows, vocabulary=case.vocabulary, logits_type=FP16 if case.half else FP32,
        prompt_len=PROMPT_LEN, max_new_tokens=MAX_NEW_TOKENS, num_eos=len(given.eos_ids),
        temperature=case.temperature, top_p=case.top_p, logits_slot=logits.shape[1],
    )  # fmt: skip
    arrays = {
        "logits": logits, "keys": stream_keys(SEED, given.cells, TOKEN_STREAM), "eos_ids": given.eos_ids,
        **vars(given.state),
        "chosen": np.full(case.rows, 77, np.int32), "logprobs": np.full(case.rows, 77, np.float32), **(own or {}),
    }  # fmt: skip
    return runner("cellscribe_sample", p, arrays)


def on_the_cpu(case: Case, given: Given) -> tuple[np.ndarray, np.ndarray]:
    sampling = Sampling(top_p=case.top_p if case.temperature else 1.0, temperature=case.temperature, seed=SEED)
    with np.errstate(all="ignore"):
        tokens, logprobs = choose(
            given.logits.astype(np.float32), sampling, given.cells, given.state.lengths.astype(np.int64)
        )
    return np.where(np.isfinite(logprobs), tokens, NOT_FINITE), logprobs


def check(runner: Runner, case: Case, given: Given) -> dict[str, np.ndarray]:
    found = run(runner, case, given)
    wanted, _ = on_the_cpu(case, given)
    draws = uniforms(stream_keys(SEED, given.cells, TOKEN_STREAM), given.state.lengths)
    runs = given.state.finished == 0
    for row in np.flatnonzero(runs & (found["chosen"] != wanted)):
        assert case.temperature > 0, "greedy choices differ"
        assert boundary_distance(given.logits[row], case.temperature, case.top_p, float(draws[row])) < 1e-7
    state, chosen = given.state.moved(
        np.where(runs, found["chosen"], wanted), PROMPT_LEN, MAX_NEW_TOKENS, given.eos_ids
    )
    assert np.array_equal(found["chosen"], chosen)
    for name, array in vars(state).items():
        assert np.array_equal(found[name], array), name
    for row, token in enumerate(found["chosen"]):
        if token >= 0:
            probability = log_probability(given.logits[row], token)
            assert abs(found["logprobs"][row] - probability) < 1e-5 * max(1.0, abs(probability))
        else:
            assert np.isnan(found["logprobs"][row]) if token == NOT_FINITE else found["logprobs"][row] == 0.0
    return found


@pytest.mark.parametrize("case", SWEEP + LARGE, ids=label)
def test_draws_are_those_of_the_cpu(runner: Runner, case: Case) -> None:
    check(runner, case, inputs(case))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("vocabulary", "half"), [(3, False), (1001, False), (1024, True), (32000, True)])
def test_greedy_choices_are_those_of_the_cpu(runner: Runner, kind: str, vocabulary: int, half: bool) -> None:
    if half and kind in ("far apart", "narrow", "subnormal", "hardly different"):
        pytest.skip("not of fp16's range")
    case = Case(kind, 2 if vocabulary > 9999 else 12, vocabulary, temperature=0.0, half=half)
    given = inputs(case)
    assert np.array_equal(check(runner, case, given)["chosen"], on_the_cpu(case, given)[0])


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("half", [False, True])
def test_what_is_not_finite_is_lost_and_finished_slots_stay(runner: Runner, temperature: float, half: bool) -> None:
    case = Case("masked", 40, 300, temperature, half=half)
    given = inputs(case, finished=0.4)
    spoilers = [np.nan, -np.nan, np.inf]
    for row in range(0, 30, 3):
        given.logits[row, 11 * row % 300] = spoilers[row // 3 % 3]
    given.logits[31] = -np.inf
    given.logits[32:34, :] = np.nan
    found = check(runner, case, given)
    assert {NOT_FINITE, SILENT} < set(found["chosen"].tolist())
    assert (found["tokens"][found["chosen"] == NOT_FINITE] == 0).all()
    assert found["finished"][found["chosen"] < 0].all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_end_of_a_text_finishes_its_slot(runner: Runner, temperature: float) -> None:
    case = Case("peaked", 6, 5, temperature)  # token 2 is an end
    given = inputs(case)
    given.logits[1:] = np.roll(given.logits[1:], 1, -1)  # token 3 is none
    given.state.lengths[:] = [4, 4, MAX_NEW_TOKENS - 2, MAX_NEW_TOKENS - 1, 0, 7]
    found = check(runner, case, given)
    assert found["finished"].tolist() == [1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_the_order_of_threads_plays_no_part(
    runner: Runner, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("plain", 20, 2000, temperature)
    forward = run(runner, case, inputs(case, finished=0.2))
    assert same_bits(forward, run(runner, case, inputs(case, finished=0.2)))
    monkeypatch.setenv("CELLSCRIBE_EMULATOR_REVERSED", "1")
    assert same_bits(forward, run(runner, case, inputs(case, finished=0.2)))


def test_draws_follow_the_probabilities(runner: Runner) -> None:
    case = Case("plain", 1500, 4, 1.0, 0.8)
    given = inputs(case)
    given.logits[:] = np.log([0.3, 0.1, 0.45, 0.15])
    shares = np.bincount(run(runner, case, given)["chosen"], minlength=4) / case.rows
    assert np.abs(shares - np.array([0.3, 0.0, 0.45, 0.15]) / 0.9).max() < 0.04


WAYS = [(0.0, 1.0), (0.7, 0.9), (1.3, 1.0), (0.01, 0.5)]  # temperature and top-p


@pytest.mark.parametrize("kind", ["plain", "flat", "tied", "masked"])
@pytest.mark.parametrize(("vocabulary", "half"), [(3, False), (333, False), (1024, True), (4099, False)])
def test_each_slot_is_chosen_its_own_way_to_the_last_bit(
    runner: Runner, kind: str, vocabulary: int, half: bool
) -> None:
    case = Case(kind, 23, vocabulary, temperature=np.nan, top_p=np.nan, half=half)  # the scalars are not looked at
    given = inputs(case, finished=0.2)
    given.logits[5, 1], given.logits[6, 1] = np.nan, np.inf
    way = np.arange(case.rows) % len(WAYS)
    temperatures, top_ps = np.array(WAYS).T
    own = {"temperatures": temperatures[way].astype(np.float32), "top_ps": top_ps[way]}
    found = run(runner, case, given, own)
    assert {NOT_FINITE, SILENT} < set(found["chosen"].tolist())
    for i, (temperature, top_p) in enumerate(WAYS):
        alone = run(runner, replace(case, temperature=temperature, top_p=top_p), given)
        for name in ("finished", "lengths", "tokens", "positions", "chosen", "logprobs"):
            assert found[name][way == i].tobytes() == alone[name][way == i].tobytes(), (name, temperature)


@pytest.mark.parametrize("missing", ["temperatures", "top_ps", "keys"])
def test_samplings_of_slots_are_refused_by_halves(runner: Runner, missing: str) -> None:
    whole = {"num_slots": 1, "vocabulary": 8, "max_new_tokens": 4, "keys": 8, "temperatures": 8, "top_ps": 8}
    assert runner.code("cellscribe_sample", Sample(**(whole | {missing: None}))) == BAD_SHAPE


@pytest.mark.parametrize(
    "change",
    [
        {"num_eos": 1},
        {"num_slots": 0},
        {"vocabulary": 0},
        {"vocabulary": 2**22 + 1},
        {"logits_type": 2},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_new_tokens": 0},
        {"keys": None},
    ],
)
def test_sizes_it_is_not_built_for_are_refused(runner: Runner, change: dict[str, float]) -> None:
    sizes = {"num_slots": 1, "vocabulary": 8, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 4, "keys": 8}
    assert runner.code("cellscribe_sample", Sample(**(sizes | change))) == BAD_SHAPE
