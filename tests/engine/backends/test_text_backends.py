"""Texts after prompts, on the backends for CPUs and on the GPU's class without one, against golden values."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellscribe.engine.backends import onnxruntime_text
from cellscribe.engine.backends.cpu import cpu_problem
from cellscribe.engine.backends.cpu import text as native_text
from cellscribe.engine.backends.cpu.passes import Passes
from cellscribe.engine.backends.cpu.text import CpuText
from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText, pieces
from cellscribe.engine.backends.onnxruntime_text_cuda import OnnxRuntimeTextCuda
from cellscribe.engine.backends.sessions import CPU
from cellscribe.engine.backends.text import TextBackend, TextPlan
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.decode.scheduler import Scheduler, TextRequest
from cellscribe.engine.errors import InputError
from cellscribe.engine.text_writer import TextOptions, write_texts
from cellscribe.engine.types import Sampling

Open = Callable[[Bundle], TextBackend]
KINDS = {"c2s_gpt2": "c2s_gpt2_bundle", "c2s_neox": "c2s_bundle"}


@pytest.fixture(scope="module", params=KINDS)
def golden(request: pytest.FixtureRequest, shared: Path) -> Any:
    """A bundle of a golden checkpoint, what was said of it, and its values."""
    folder = shared / "fixtures" / request.param
    path = request.getfixturevalue(KINDS[request.param])
    return open_bundle(path), json.loads((folder / "expected.json").read_text()), np.load(folder / "expected.npz")


@pytest.fixture(params=["cpu", "onnxruntime-cpu", "onnxruntime-cuda"])
def open_text(request: pytest.FixtureRequest) -> Callable[[Bundle], TextBackend]:
    """Open a bundle on a backend."""
    if request.param == "cpu" and cpu_problem():
        pytest.skip(f"no native CPU library: {cpu_problem()}")
    if request.param == "onnxruntime-cuda":  # the same class on the CPU provider
        return lambda bundle: OnnxRuntimeTextCuda(bundle, CPU, threads=2)
    kind = CpuText if request.param == "cpu" else OnnxRuntimeText
    return lambda bundle: kind(bundle, 2)


def texts(
    backend: TextBackend,
    prompts: list[list[int]],
    num_slots: int,
    *,
    prefix: tuple[int, ...] = (),
    labels: LabelTrie | None = None,
    eos: frozenset[int] = frozenset(),
    count: int = 32,
) -> list[list[int]]:
    longest = max(map(len, labels.sequences)) if labels else 0
    plan = TextPlan(num_slots, max(map(len, prompts)), count, Sampling(), eos, prefix, longest)
    scheduler = Scheduler(backend.open_text_slots(plan), num_slots, eos_ids=eos, max_new_tokens=count)
    requests = (TextRequest(i, i, np.array(ids), labels) for i, ids in enumerate(prompts))
    found: dict[int, list[int]] = {}
    for event in scheduler.run(requests):
        found[event.text.request.index] = event.text.token_ids
    return [found[i] for i in range(len(prompts))]


@pytest.mark.parametrize("num_slots", [1, 2, 4])
def test_golden_tokens_at_any_number_of_slots(golden: Any, open_text: Open, num_slots: int) -> None:
    bundle, said, _ = golden
    eos = said["eos_token_id"]
    prompts = [one["input_ids"] for one in said["prompts"]]
    found = texts(open_text(bundle), prompts, num_slots, eos=frozenset([eos]))
    assert found == [[token for token in one["new_ids"] if token != eos] for one in said["prompts"]]


def test_golden_embeddings(golden: Any, open_text: Open) -> None:
    bundle, said, values = golden
    found = open_text(bundle).embed_prompts([np.array(one["input_ids"]) for one in said["prompts"]])
    np.testing.assert_allclose(found, values["embedding_masked_mean"], atol=5e-5, rtol=0)


def test_a_prefix_and_pieces_change_nothing(golden: Any, open_text: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, said, _ = golden
    first = said["prompts"][0]["input_ids"]
    prompts = [first[:20] + one["input_ids"][:25] for one in said["prompts"]]
    wanted = texts(open_text(bundle), prompts, 2, count=8)
    assert texts(open_text(bundle), prompts, 2, prefix=tuple(first[:20]), count=8) == wanted
    assert texts(open_text(bundle), prompts, 2, prefix=tuple(prompts[0]), count=8) == wanted
    monkeypatch.setattr(onnxruntime_text, "PIECE", 7)
    monkeypatch.setattr(native_text, "PIECE", 7)
    assert texts(open_text(bundle), prompts, 2, prefix=tuple(first[:20]), count=8) == wanted


def test_only_labels_are_written_and_the_best_one(golden: Any, open_text: Open) -> None:
    """The label is the one that greedy choices among allowed tokens give, worked out from plain logits."""
    bundle, said, _ = golden
    eos = said["eos_token_id"]
    ids = ((5, 6, 7), (5, 8), (20, 21, 22, 23), (5, 6, 9, 10), (30,))
    labels = LabelTrie([f"label {i}" for i in range(len(ids))], ids, eos)
    prompts = [one["input_ids"] for one in said["prompts"]]
    wanted = [by_hand(open_text(bundle), prompt, labels) for prompt in prompts]
    for num_slots in (1, 3):
        found = texts(open_text(bundle), prompts, num_slots, labels=labels, eos=frozenset([eos]))
        assert [[*one, eos] for one in found] == wanted


def test_all_labels_get_their_probability(golden: Any, open_text: Open) -> None:
    """Those that plain logits give, each label in a prompt of its own."""
    bundle, said, _ = golden
    eos, backend = said["eos_token_id"], open_text(bundle)
    ids = ((5, 6, 7), (5, 8), (20, 21, 22, 23), (5, 6, 9, 10), (5, 6, 9, 11), (20, 21), (30,))
    labels = LabelTrie([f"label {i}" for i in range(len(ids))], ids, eos)
    prompts = [one["input_ids"] for one in said["prompts"]]
    wanted = np.array([[chance(backend, prompt, labels, i) for i in range(len(ids))] for prompt in prompts])
    np.testing.assert_allclose(wanted.sum(1), 1, rtol=1e-4)
    for num_slots in (1, 3):
        found = surveyed(backend, prompts, labels, num_slots, eos)
        np.testing.assert_allclose(np.exp([one.label_logprobs for one in found]), wanted, atol=2e-4, rtol=0)
        best = [list(ids[int(one.label_logprobs.argmax())]) for one in found]
        assert [one.token_ids for one in found] == best


def surveyed(backend: TextBackend, prompts: list[list[int]], labels: LabelTrie, num_slots: int, eos: int) -> list[Any]:
    options = TextOptions(Sampling(), 2, num_slots, frozenset([eos]), labels, all_labels=True)
    tokens = [np.array(one) for one in prompts]
    return sorted(write_texts(backend, tokens, range(len(prompts)), options), key=lambda one: one.request.index)


def chance(backend: TextBackend, prompt: list[int], labels: LabelTrie, which: int) -> float:
    """The product of a label's choices, each worked out from the logits after a prompt of its own."""
    found, sequence = 1.0, labels.sequences[which]
    for at, token in enumerate(sequence):
        allowed = sorted({one[at] for one in labels.sequences if one[:at] == sequence[:at]})
        plan = TextPlan(1, len(prompt) + at, 1, Sampling())
        slots = backend.open_text_slots(plan)
        slots.admit([TextRequest(0, 0, np.array([*prompt, *sequence[:at]])).admission(0)]).wait()
        weights = np.exp(slots.logits(1)[0][allowed].astype(np.float64))
        found *= float(weights[allowed.index(token)] / weights.sum())
    return found


def by_hand(backend: TextBackend, prompt: list[int], labels: LabelTrie) -> list[int]:
    """Walk the trie with a prompt of its own for every token."""
    left, written = list(labels.sequences), list[int]()
    while written not in [list(one) for one in left]:
        plan = TextPlan(1, len(prompt) + len(written), 1, Sampling())
        slots = backend.open_text_slots(plan)
        slots.admit([TextRequest(0, 0, np.array([*prompt, *written])).admission(0)]).wait()
        logits = slots.logits(1)[0]
        allowed = sorted({one[len(written)] for one in left})
        written.append(allowed[int(logits[allowed].argmax())])
        left = [one for one in left if list(one[: len(written)]) == written]
    return written


def test_one_label_is_written_without_a_run(golden: Any, open_text: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, said, _ = golden
    eos = said["eos_token_id"]
    for where, name in ((OnnxRuntimeText, "run"), (Passes, "run"), (OnnxRuntimeTextCuda, "run_piece")):
        monkeypatch.setattr(where, name, lambda *_, **__: pytest.fail("nothing is to be chosen"))
    labels = LabelTrie(["only"], [(7, 8, 9)], eos)
    assert texts(open_text(bundle), [said["prompts"][0]["input_ids"]], 1, labels=labels, eos=frozenset([eos])) == [
        [7, 8, 9]
    ]


def test_a_prompt_beyond_the_context_is_one_sentence(golden: Any, open_text: Open) -> None:
    bundle, _, _ = golden
    most = bundle.manifest.decoder.max_positions
    with pytest.raises(InputError, match="do not fit"):
        texts(open_text(bundle), [[1] * most], 1, count=1)


def test_pieces_have_more_than_one_position() -> None:
    for known in (0, 5):
        for length in (known + 2, known + 256, known + 257, known + 1000):
            found = list(pieces(known, length))
            assert found[0][0] == known
            assert found[-1][1] == length
            assert all(a[1] == b[0] for a, b in pairwise(found))
            assert min(stop - start for start, stop in found) > 1
