"""GPT-2, GPT-NeoX and Gemma-2 against golden values and against transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.bundle import export_checkpoint
from cellscribe.export.checkpoint.causal import read_causal
from cellscribe.export.models.causal import CausalDecoder, CausalGraph
from cellscribe.export.parts import read_tokenizer
from cellscribe.export.trace import cache_names, trace_causal

CAPACITY = 160


def greedy(decoder: CausalDecoder, ids: list[int], count: int, eos: int) -> tuple[list[int], np.ndarray]:
    """Choose tokens without a cache; the logits that chose them."""
    seen, logits = list(ids), []
    with torch.no_grad():
        for _ in range(count):
            logits.append(decoder.forward_train(torch.tensor([seen]))[0][0, -1].numpy())
            seen.append(int(logits[-1].argmax()))
            if seen[-1] == eos:
                break
    return seen[len(ids) :], np.stack(logits)


@pytest.mark.parametrize("name", ["c2s_gpt2", "c2s_neox"])
def test_golden_values(shared: Path, name: str) -> None:
    folder = shared / "fixtures" / name
    said, values = json.loads((folder / "expected.json").read_text()), np.load(folder / "expected.npz")
    decoder = read_causal(folder / "model")
    for i, prompt in enumerate(said["prompts"]):
        found, logits = greedy(decoder, prompt["input_ids"], 32, said["eos_token_id"])
        assert found == prompt["new_ids"]
        np.testing.assert_allclose(logits, values["logits"][i, : len(logits)], atol=5e-4, rtol=0)
        with torch.no_grad():
            states = decoder.forward_train(torch.tensor([prompt["input_ids"]]))[1][0]
        np.testing.assert_allclose(states.mean(0), values["embedding_masked_mean"][i], atol=5e-5, rtol=0)
        np.testing.assert_allclose(states[-1], values["last_token_hidden"][i], atol=5e-5, rtol=0)


def run_graph(session: ort.InferenceSession, decoder: CausalDecoder, pieces: list[np.ndarray]) -> list[np.ndarray]:
    """Run pieces of tokens [B, T] one after the other; the logits [B, T, V] of each."""
    config, start, found = decoder.config, 0, []
    batch = len(pieces[0])
    shape = (batch, config.n_kv_heads, CAPACITY, config.d_head)
    caches = {name: np.zeros(shape, np.float32) for name in cache_names(config.n_layers)}
    for tokens in pieces:
        length = tokens.shape[1]
        positions = np.tile(np.arange(start, start + length), (batch, 1))
        place = np.arange(CAPACITY)[None, None]
        mask = place <= positions[:, :, None]
        feed = {
            "tokens": tokens,
            "positions": positions,
            "mask": mask,
            "chosen": np.tile(np.arange(length), (batch, 1)),
        }
        if config.window:
            feed["near"] = mask & (place > positions[:, :, None] - config.window)
        logits, _, *new = session.run(None, feed | caches)
        caches = dict(zip(caches, new, strict=True))
        found.append(logits)
        start += length
    return found


@pytest.mark.parametrize("name", ["c2s_gpt2", "c2s_neox"])
def test_the_graph_gives_the_golden_tokens(shared: Path, tmp_path: Path, name: str) -> None:
    folder = shared / "fixtures" / name
    said, values = json.loads((folder / "expected.json").read_text()), np.load(folder / "expected.npz")
    decoder = read_causal(folder / "model")
    trace_causal(CausalGraph(decoder), tmp_path / "decoder.onnx", torch.float32)
    session = ort.InferenceSession(tmp_path / "decoder.onnx")
    for i, prompt in enumerate(said["prompts"]):
        pieces = [np.array([prompt["input_ids"]]), *(np.array([[token]]) for token in prompt["new_ids"][:-1])]
        logits = np.stack([piece[0, -1] for piece in run_graph(session, decoder, pieces)])
        assert logits.argmax(-1).tolist() == prompt["new_ids"]
        np.testing.assert_allclose(logits, values["logits"][i, : len(logits)], atol=5e-4, rtol=0)


CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64}),
    "neox in sequence": (
        "GPTNeoXConfig",
        {
            "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 48,
            "use_parallel_residual": False, "max_position_embeddings": 64, "rotary_pct": 0.5,
        },
    ),
    "gemma2": (
        "Gemma2Config",
        {
            "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3,
            "intermediate_size": 48, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 5,
            "max_position_embeddings": 64, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0,
        },
    ),
}  # fmt: skip


def saved(tmp_path: Path, name: str) -> tuple[Any, Path]:
    """A transformers model of random weights, its norms moved away from one, and its folder."""
    kind, sizes = CONFIGS[name]
    config = getattr(transformers, kind)(vocab_size=99, bos_token_id=0, eos_token_id=1, pad_token_id=2, **sizes)
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(std=0.3)
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


@pytest.mark.parametrize("name", list(CONFIGS))
def test_random_models_of_transformers(tmp_path: Path, name: str) -> None:
    model, folder = saved(tmp_path, name)
    decoder = read_causal(folder)
    tokens = torch.randint(0, 99, (2, 21))
    with torch.no_grad():
        wanted = model(tokens, output_hidden_states=True)
        logits, states = decoder.forward_train(tokens)
    assert float(wanted.logits.abs().max()) > 1
    torch.testing.assert_close(logits, wanted.logits, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(states, wanted.hidden_states[-1], atol=2e-4, rtol=1e-4)


def test_pieces_of_a_prompt_and_steps_equal_the_whole(tmp_path: Path) -> None:
    """Gemma-2 has all habits: caps, a window shorter than the text, grouped heads, norms after the products."""
    _, folder = saved(tmp_path, "gemma2")
    decoder = read_causal(folder)
    trace_causal(CausalGraph(decoder), tmp_path / "decoder.onnx", torch.float32)
    session = ort.InferenceSession(tmp_path / "decoder.onnx")
    tokens = np.random.default_rng(0).integers(0, 99, (2, 23))
    with torch.no_grad():
        wanted = decoder.forward_train(torch.tensor(tokens))[0].numpy()
    for cuts in ([23], [9, 1, 1, 12], [1] * 23):
        pieces = np.split(tokens, np.cumsum(cuts)[:-1], axis=1)
        found = np.concatenate(run_graph(session, decoder, pieces), 1)
        np.testing.assert_allclose(found, wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("gpt2", {"model_type": "opt"}, "model_type 'opt'"),
        ("gpt2", {"activation_function": "relu6"}, "activation 'relu6'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_embd": None}, "lacks or garbles"),
        ("gpt2", {"n_layer": 1}, "does not use"),
        ("gpt2", {"n_layer": 3}, "has no tensor"),
        ("gpt2", {"vocab_size": 98}, "the configuration says"),
        ("neox in sequence", {"rope_scaling": {"rope_type": "yarn"}}, "rope scaling 'yarn'"),
        ("neox in sequence", {"num_attention_heads": 3}, "do not fit together"),
        ("gemma2", {"layer_types": ["full_attention"] * 3}, "orders its layers otherwise"),
        ("gemma2", {"attention_bias": True}, "attention_bias"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, change: dict[str, Any], said: str) -> None:
    _, folder = saved(tmp_path, name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=said):
        read_causal(folder)
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        read_causal(folder)


def test_a_tokenizer_neither_cuts_nor_fills_up(shared: Path, tmp_path: Path) -> None:
    """What training left in tokenizer.json would shorten every sentence."""
    tokenizer = Tokenizer.from_file(str(shared / "fixtures" / "c2s_neox" / "model" / "tokenizer.json"))
    wanted = tokenizer.encode("CD3D LYZ NKG7 MS4A1 GNLY").ids
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("CD3D LYZ NKG7").ids != wanted
    assert read_tokenizer(tmp_path / "tokenizer.json").encode("CD3D LYZ NKG7 MS4A1 GNLY").ids == wanted


def test_a_tokenizer_of_more_tokens_than_the_decoder(shared: Path, tmp_path: Path) -> None:
    _, folder = saved(tmp_path, "gpt2")  # of 99 tokens
    shutil.copy(shared / "fixtures" / "c2s_neox" / "model" / "tokenizer.json", folder)
    with pytest.raises(CheckpointError, match="and a decoder of 99; take the tokenizer"):
        export_checkpoint(folder, tmp_path / "bundle", family="c2s")
    assert not (tmp_path / "bundle").exists()
