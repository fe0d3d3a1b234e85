"""Parity of bundles that read sentences, on both backends for CPUs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellscribe.engine.backends.cpu.text import CpuText
from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.backends.onnxruntime_text_cuda import OnnxRuntimeTextCuda
from cellscribe.engine.backends.sessions import CPU
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import BundleError
from cellscribe.engine.verify_text import measure_text_parity, require_text_parity, text_failures, verify_text_bundle

GEMMA = {
    "hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3,
    "intermediate_size": 80, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 21,
    "max_position_embeddings": 160, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "Gemma2Config": GEMMA,
    "Gemma2Config, a window of less than the rows that attend together": GEMMA | {"sliding_window": 3},
    "GPTNeoXConfig": {
        "hidden_size": 40, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 72,
        "use_parallel_residual": False, "max_position_embeddings": 160, "rotary_pct": 0.5,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=list(SIZES))
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a transformers model with random weights and a tokenizer of single letters."""
    torch = pytest.importorskip("torch", reason="the export extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the export extra is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers

    from cellscribe.export.bundle import export_checkpoint

    letters = [chr(i) for i in range(33, 127)]
    words = {letter: i for i, letter in enumerate(["<eos>", "<unk>", " ", *letters])}
    config = getattr(transformers, request.param.split(",")[0])(
        vocab_size=len(words), bos_token_id=0, eos_token_id=0, pad_token_id=0, **SIZES[request.param]
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("text")
    model.save_pretrained(folder / "model")
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(folder / "model" / "tokenizer.json"))
    export_checkpoint(folder / "model", folder / "bundle", family="c2s")
    return open_bundle(folder / "bundle")


def test_parity_was_kept_and_is_found_again(bundle: Bundle) -> None:
    kept = bundle.manifest.text_parity
    assert kept is not None
    assert kept.prompts == 4
    found = measure_text_parity(bundle, OnnxRuntimeText(bundle, 1), kept.source)
    assert not text_failures(found)
    assert found.tokens == kept.tokens == 32


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("instruction_set", ["avx2", None])
def test_the_native_library_computes_the_same(bundle: Bundle, instruction_set: str | None) -> None:
    found = measure_text_parity(bundle, CpuText(bundle, 2, instruction_set), "native")
    require_text_parity(found, bundle.name)
    assert found.logits_max_error < 5e-4
    assert found.embedding_max_error < 1e-4


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("instruction_set", ["avx2", None])
def test_rows_that_attend_together_get_what_each_gets_alone(bundle: Bundle, instruction_set: str | None) -> None:
    backend = CpuText(bundle, 2, instruction_set)
    tokens = np.random.Generator(np.random.PCG64(0)).integers(3, 90, (2, 61))
    slots, positions = np.repeat([0, 1], 61), np.tile(np.arange(61), 2)

    def states(cuts: range) -> np.ndarray:
        """Rows of both slots, some at a time."""
        passes, found = backend._passes(backend.decoder, 2, 61), np.zeros((122, backend.shape.d_model), np.float32)
        for start in cuts:
            rows = np.arange(122)[start : start + cuts.step]
            x = backend.decoder.embed_at(tokens.reshape(-1)[rows], positions[rows])
            found[rows] = passes.states(x, slots[rows].copy(), positions[rows].copy())
        return found

    whole = states(range(0, 122, 122))
    assert np.isfinite(whole).all()
    for step in (1, 3, 9, 64):
        np.testing.assert_array_equal(states(range(0, 122, step)), whole)


def test_the_class_for_gpus_computes_the_same(bundle: Bundle) -> None:
    found = measure_text_parity(bundle, OnnxRuntimeTextCuda(bundle, CPU, threads=1), "device")
    require_text_parity(found, bundle.name)
    assert found.logits_max_error < 5e-4


def test_the_report_says_it(bundle: Bundle) -> None:
    found = verify_text_bundle(bundle, "onnxruntime-cpu", 1)
    assert found.passed
    assert "4 prompts (sentences of" in found.lines()[1]
    assert found.as_dict()["passed"] is True


def test_what_is_too_far_is_a_sentence(bundle: Bundle) -> None:
    parity = bundle.manifest.text_parity
    assert parity is not None
    far = replace(parity, logits_max_error=1.0, greedy_agreement=0.5)
    assert len(text_failures(far)) == 2
    with pytest.raises(BundleError, match="does not reproduce the torch model: logits_max_error is 1"):
        require_text_parity(far, "it")
    assert text_failures(replace(parity, embedding_max_error=float(np.nan)))
    assert Path(bundle.folder).is_dir()
