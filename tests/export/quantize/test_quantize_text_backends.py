"""Quantised bundles that read sentences: the native library against ONNX Runtime, and both at any number of slots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine.backends.cpu import cpu_problem
from cellscribe.engine.backends.cpu.backend import slot_bytes
from cellscribe.engine.backends.cpu.text import CpuText
from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.backends.text import TextBackend, TextPlan
from cellscribe.engine.backends.text_state import TextState
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.decode.scheduler import Scheduler, TextRequest
from cellscribe.engine.measure_text import Prompts, follow, real_prompts
from cellscribe.engine.types import Sampling
from cellscribe.engine.verify_text import forced_logits
from cellscribe.export.quantize.bundle import quantize_bundle
from cellscribe.kernels.cpu_library import Kind, PackedWeight, instruction_sets

Quantize = Callable[[Path, str], Path]
PRECISIONS = ("fp16-stored", "int8", "int4")
# Of the logits' standard deviation, at most and on average. Both round the inputs of products to 8 bits, but not the
# same ones: a sum in another order may round to the next code, and every number behind it moves.
APART = {"fp16-stored": (1e-4, 1e-5), "int8": (0.1, 0.015), "int4": (0.1, 0.015)}
# Where the library keeps keys and values in bytes, too, which other backends do not.
BYTES_APART = (0.2, 0.02)
NUM_TOKENS = 16


@pytest.fixture(params=["cpu", "onnxruntime-cpu"])
def open_text(request: pytest.FixtureRequest) -> Callable[[Bundle], TextBackend]:
    """Open a bundle on a backend."""
    if request.param == "cpu" and cpu_problem():
        pytest.skip(f"no native CPU library: {cpu_problem()}")
    kind = CpuText if request.param == "cpu" else OnnxRuntimeText
    return lambda bundle: kind(bundle, 2)


def short_prompts(bundle: Bundle, count: int) -> Prompts:
    """Prompts about cells, cut to different lengths."""
    whole = real_prompts(bundle, None, count, NUM_TOKENS)
    return Prompts(tuple(one[: 90 - 9 * i] for i, one in enumerate(whole.tokens)), whole.source)


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("instruction_set", instruction_sets() or ["none"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_native_library_computes_what_onnx_runtime_does(
    text_bundle: Path, quantized: Quantize, precision: str, instruction_set: str
) -> None:
    bundle = open_bundle(quantized(text_bundle, precision))
    prompts = list(short_prompts(bundle, 4).tokens)
    theirs, ours = OnnxRuntimeText(bundle, 2), CpuText(bundle, 2, instruction_set)
    in_bytes = precision != "fp16-stored" and instruction_set != "avx2"
    assert ours.decoder.cache_kind == (Kind.INT8 if in_bytes else Kind.FLOAT)
    text = follow(theirs, prompts, NUM_TOKENS)
    wanted, found = (forced_logits(backend, prompts, text.tokens) for backend in (theirs, ours))
    apart, (most, mean) = np.abs(wanted - found) / wanted.std(), BYTES_APART if in_bytes else APART[precision]
    assert apart.max() <= most
    assert apart.mean() <= mean
    assert (text.best == follow(ours, prompts, NUM_TOKENS, text.tokens).best).mean() > 0.9
    embeddings = [backend.embed_prompts(prompts) for backend in (theirs, ours)]
    room = 0.04 if in_bytes else 5e-3
    np.testing.assert_allclose(*embeddings, atol=room * float(embeddings[0].std()) + 5e-3 * most, rtol=0)


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("precision", ["fp16-stored", "int8"])
def test_slots_take_the_room_that_is_asked_for(text_bundle: Path, quantized: Quantize, precision: str) -> None:
    backend = CpuText(open_bundle(quantized(text_bundle, precision)), 2)
    plan = TextPlan(3, longest_prompt=40, max_new_tokens=9, sampling=Sampling())
    kind = backend.decoder.cache_kind
    assert backend.open_text_slots(plan).bytes == 3 * slot_bytes(backend.shape, TextState(plan).capacity, kind)


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_keys_and_values_in_bytes_cost_little(text_bundle: Path, quantized: Quantize, precision: str) -> None:
    """Logits are hardly farther from those of fp32 than ONNX Runtime's, which keeps keys and values in float32."""
    bundle = open_bundle(quantized(text_bundle, precision))
    prompts = list(short_prompts(bundle, 4).tokens)
    backends = CpuText(open_bundle(text_bundle), 2), OnnxRuntimeText(bundle, 2), CpuText(bundle, 2)
    tokens = follow(backends[0], prompts, NUM_TOKENS).tokens
    whole, theirs, ours = (forced_logits(backend, prompts, tokens) for backend in backends)
    assert np.sqrt(((ours - whole) ** 2).mean()) < 1.25 * np.sqrt(((theirs - whole) ** 2).mean())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_logits_do_not_depend_on_slots(
    text_bundle: Path, quantized: Quantize, precision: str, open_text: Callable[[Bundle], TextBackend]
) -> None:
    """Bit for bit, along the same text."""
    bundle = open_bundle(quantized(text_bundle, precision))
    backend, prompts = open_text(bundle), list(short_prompts(bundle, 7).tokens)
    tokens = follow(backend, prompts, NUM_TOKENS).tokens
    together = forced_logits(backend, prompts, tokens)
    for i, prompt in enumerate(prompts):
        alone = forced_logits(backend, [prompt], tokens[i : i + 1])[0]
        assert alone.tobytes() == together[i].tobytes()


def test_tokens_do_not_depend_on_slots(
    text_bundle: Path, quantized: Quantize, open_text: Callable[[Bundle], TextBackend]
) -> None:
    bundle = open_bundle(quantized(text_bundle, "int4"))  # logits of the others do not either, as seen above
    backend, prompts = open_text(bundle), short_prompts(bundle, 7).tokens
    found = []
    for num_slots in (1, 3, 8):
        plan = TextPlan(num_slots, max(map(len, prompts)), NUM_TOKENS, Sampling())
        scheduler = Scheduler(backend.open_text_slots(plan), num_slots, eos_ids=frozenset(), max_new_tokens=NUM_TOKENS)
        texts: dict[int, tuple[list[int], list[float]]] = {}
        for event in scheduler.run(TextRequest(i, i, one) for i, one in enumerate(prompts)):
            texts[event.text.request.index] = (event.text.token_ids, event.text.logprobs)
        found.append([texts[i] for i in range(len(prompts))])
    assert found[0] == found[1] == found[2]
    assert len(found[0][0][0]) == NUM_TOKENS


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize(("precision", "kind"), [("int8", Kind.INT8), ("int4", Kind.INT4)])
def test_the_native_library_multiplies_what_is_stored(
    text_bundle: Path, quantized: Quantize, monkeypatch: pytest.MonkeyPatch, precision: str, kind: Kind
) -> None:
    """No product is widened on the way: the weights that a step reads are those of the file."""
    packed: list[Kind] = []
    made = PackedWeight.__init__

    def note(self: PackedWeight, library: object, kind: Kind, *rest: object, **named: object) -> None:
        packed.append(kind)
        made(self, library, kind, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(PackedWeight, "__init__", note)
    bundle = open_bundle(quantized(text_bundle, precision))
    shape, decoder = bundle.manifest.decoder, CpuText(bundle, 1).decoder
    assert shape is not None
    assert packed.count(kind) == 4 * shape.n_layers + (precision == "int8")
    assert set(packed) == {kind, Kind.INT8}
    assert decoder.bytes_per_step < 0.4 * (text_bundle / "decoder.onnx.data").stat().st_size


@pytest.mark.usefixtures("native_library")
def test_parts_of_other_bits_run_together(text_bundle: Path, tmp_path: Path) -> None:
    """Queries in 8 bits beside keys and values in 4 are one product."""
    keep = ("*.attention.q.weight", "decoder.layers.0.feed_forward.down.weight")
    quantize_bundle(text_bundle, tmp_path / "kept", "int4", keep=keep)
    bundle = open_bundle(tmp_path / "kept")
    prompts = list(short_prompts(bundle, 2).tokens)
    theirs, ours = OnnxRuntimeText(bundle, 2), CpuText(bundle, 2)
    tokens = follow(theirs, prompts, 4).tokens
    wanted, found = (forced_logits(backend, prompts, tokens) for backend in (theirs, ours))
    assert np.abs(wanted - found).mean() <= 0.02 * wanted.std()
