"""A plain Llama with random weights as a Hugging Face folder: what every peer converts and runs.

The shape is TinyLlama-1.1B's, or that of two of its layers. The weights are drawn as in
:mod:`cellscribe.export.random_model`: embeddings with deviation 1, linear maps with 1/sqrt(fan-in), the head with
2/sqrt(d), so that logits are spread and greedy choices are rarely close. The head's rows of the special tokens are
zero: no text ever ends, whatever a peer does about end tokens. NumPy only, so that any environment can write it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from peers.tiny_model import write_folder

SPECIALS = ("<unk>", "<s>", "</s>")
_SEED = 0


@dataclass(frozen=True)
class LlamaShape:
    """Sizes of a Llama decoder."""

    d_model: int = 2048
    n_layers: int = 22
    n_heads: int = 32
    n_kv_heads: int = 4
    d_ffn: int = 5632
    vocab_size: int = 32000
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    max_positions: int = 2048

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads


SHAPES = {
    "tinyllama-1.1b": LlamaShape(),
    "tinyllama-2-layers": LlamaShape(n_layers=2),
    "tiny": LlamaShape(d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, d_ffn=96, vocab_size=300, max_positions=256),
}


def random_prompts(count: int, length: int, vocab_size: int, seed: int = 0) -> list[list[int]]:
    """Return prompts [count, length] of drawn ordinary tokens; the first ones are the same for every count."""
    draws = (np.random.Generator(np.random.PCG64((seed, i))) for i in range(count))
    return [one.integers(len(SPECIALS), vocab_size, length).tolist() for one in draws]


def write_llama(folder: Path, shape: LlamaShape) -> Path:
    """Write config.json, model.safetensors (fp32) and the tokenizer, under a temporary name and then renamed."""
    files = {
        "config.json": config(shape),
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        "tokenizer.json": tokenizer(shape.vocab_size),
        "tokenizer_config.json": _TOKENIZER_CONFIG,
    }
    return write_folder(folder, files, tensor_shapes(shape), _weights(shape))


def config(shape: LlamaShape) -> dict[str, Any]:
    """Return the Hugging Face configuration, with the rotary base as both old and new releases name it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ffn,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.d_head,
        "vocab_size": shape.vocab_size,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rms_norm_eps": shape.rms_norm_eps,
        "max_position_embeddings": shape.max_positions,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "use_cache": True,
    }


def tensor_shapes(shape: LlamaShape) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight under its Hugging Face name, in the order they are drawn."""
    d, kv = shape.d_model, shape.n_kv_heads * shape.d_head
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab_size, d)}
    for i in range(shape.n_layers):
        for name, size in (
            ("input_layernorm", (d,)),
            ("self_attn.q_proj", (d, d)),
            ("self_attn.k_proj", (kv, d)),
            ("self_attn.v_proj", (kv, d)),
            ("self_attn.o_proj", (d, d)),
            ("post_attention_layernorm", (d,)),
            ("mlp.gate_proj", (shape.d_ffn, d)),
            ("mlp.up_proj", (shape.d_ffn, d)),
            ("mlp.down_proj", (d, shape.d_ffn)),
        ):
            found[f"model.layers.{i}.{name}.weight"] = size
    return found | {"model.norm.weight": (d,), "lm_head.weight": (shape.vocab_size, d)}


def tokenizer(vocab_size: int) -> dict[str, Any]:
    """Return a tokenizer.json with a word per token; peers are given ids, their converters want a file."""
    vocabulary = {name: i for i, name in enumerate(SPECIALS)}
    vocabulary |= {f"w{i}": i for i in range(len(SPECIALS), vocab_size)}
    added = [
        {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for i, name in enumerate(SPECIALS)
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }


_TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<unk>",
    "model_max_length": 2048,
}


def _weights(shape: LlamaShape) -> Iterator[npt.NDArray[np.float32]]:
    generator = np.random.Generator(np.random.SFC64(_SEED))
    for name, size in tensor_shapes(shape).items():
        if len(size) == 1:
            yield np.ones(size, np.float32)
            continue
        drawn = generator.standard_normal(size, np.float32)
        if not name.startswith("model.embed_tokens"):
            drawn *= np.float32((2.0 if name == "lm_head.weight" else 1.0) / size[1] ** 0.5)
        if name == "lm_head.weight":
            drawn[: len(SPECIALS)] = 0.0
        yield drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama-1.1b")
    parser.add_argument("--layers", type=int, help="that many layers instead of the shape's")
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    if arguments.layers:
        shape = LlamaShape(**{**shape.__dict__, "n_layers": arguments.layers})
    write_llama(arguments.folder, shape)


if __name__ == "__main__":
    main()
