"""A plain GPT-NeoX with random weights as a Hugging Face folder: what every peer converts and runs.

The shape is Pythia-410m's, or a small one. Every tensor is drawn under a key of its own, its name. Embeddings have
deviation 1, linear maps 1/sqrt(fan-in), the head 2/sqrt(d), biases and the scales of norms 0.1, so that logits are
spread, greedy choices are rarely close, and a bias that an engine forgets shows. The head's row of the end token is
zero: no text ends. The configuration is in the form of published Pythias (transformers 4). NumPy only.

The tokenizer has Pythia's byte-level pieces, 50,304 ids at the full shape, and a rule in place of learned merges: a
space joins the two letters after it, then letters join in pairs and digits in twos and threes, and the words of our
own prompts are whole. Of sentences of 200 genes it makes 1 % more tokens than Pythia's own tokenizer does (see
`peers.c2s_prompts`); which ids they are makes no difference to time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_letters, ascii_uppercase, digits
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from peers.tiny_model import write_folder

END = "<|endoftext|>"
SPACE = "Ġ"  # a space, as byte-level tokenizers write it
_SEED = 0
_BIAS = np.float32(0.1)
_WORDS = (
    "Genes", "of", "one", "human", "cell", "most", "expressed", "first", "named", "What", "type", "is", "it", "Answer",
    "List", "the", "genes", "a", "highest",
)  # fmt: skip


@dataclass(frozen=True)
class NeoxShape:
    """Sizes of a GPT-NeoX decoder."""

    d_model: int = 1024
    n_layers: int = 24
    n_heads: int = 16
    d_ffn: int = 4096
    vocab_size: int = 50304
    rotary_pct: float = 0.25
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    max_positions: int = 2048

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads


SHAPES = {
    "pythia-410m": NeoxShape(),
    "pythia-4-layers": NeoxShape(n_layers=4),
    "tiny-neox": NeoxShape(d_model=64, n_layers=2, n_heads=4, d_ffn=160, vocab_size=3008),
}


def write_neox(folder: Path, shape: NeoxShape) -> Path:
    """Write config.json, model.safetensors (fp32) and the tokenizer, under a temporary name and then renamed."""
    files = {
        "config.json": config(shape),
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": _TOKENIZER_CONFIG,
    }
    return write_folder(folder, files, tensor_shapes(shape), _weights(shape))


def config(shape: NeoxShape) -> dict[str, Any]:
    """Return the Hugging Face configuration."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ffn,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "vocab_size": shape.vocab_size,
        "rotary_pct": shape.rotary_pct,
        "rotary_emb_base": int(shape.rope_theta),
        "layer_norm_eps": shape.norm_eps,
        "max_position_embeddings": shape.max_positions,
        "hidden_act": "gelu",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 0,
        "use_cache": True,
    }


def tensor_shapes(shape: NeoxShape) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight under its Hugging Face name."""
    d, f = shape.d_model, shape.d_ffn
    found: dict[str, tuple[int, ...]] = {"gpt_neox.embed_in.weight": (shape.vocab_size, d)}
    for i in range(shape.n_layers):
        for name, size in (
            ("input_layernorm", (d,)),
            ("post_attention_layernorm", (d,)),
            ("attention.query_key_value", (3 * d, d)),
            ("attention.dense", (d, d)),
            ("mlp.dense_h_to_4h", (f, d)),
            ("mlp.dense_4h_to_h", (d, f)),
        ):
            found[f"gpt_neox.layers.{i}.{name}.weight"] = size
            found[f"gpt_neox.layers.{i}.{name}.bias"] = size[:1]
    found |= {f"gpt_neox.final_layer_norm.{part}": (d,) for part in ("weight", "bias")}
    return found | {"embed_out.weight": (shape.vocab_size, d)}


def tokenizer() -> dict[str, Any]:
    """Return a tokenizer.json by the rule above."""
    merges = merge_rule()
    pieces = [END, *_bytes(), *("".join(pair) for pair in merges)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": 0, "content": END, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
           "special": True}  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
        "pre_tokenizer": by_bytes,
        "post_processor": by_bytes,
        "decoder": by_bytes,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }  # fmt: skip


def merge_rule() -> list[tuple[str, str]]:
    """Return the merges, first ones first: words letter by letter, a space and two letters, letters, digits."""
    merges = [(SPACE, letter) for letter in ascii_letters]
    for word in (*(f"{SPACE}{one}" for one in _WORDS), *(one for one in _WORDS if one[0] in ascii_uppercase)):
        merges += [(word[:n], word[n]) for n in range(1, len(word))]
    merges += [(f"{SPACE}{one}", other) for one in ascii_uppercase for other in ascii_uppercase]
    merges += [(one, other) for one in ascii_uppercase for other in ascii_uppercase]
    merges += [(one, other) for one in digits[::-1] for other in digits]
    merges += [(f"{one}{other}", last) for one in digits for other in digits for last in digits]
    return list(dict.fromkeys(merges))


def _bytes() -> list[str]:
    """Return the characters that stand for the 256 bytes: printable ones for themselves, the others from 256 on."""
    kept = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(shifted)) for byte in range(256)]


_TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": END,
    "bos_token": END,
    "eos_token": END,
    "model_max_length": 2048,
}


def _weights(shape: NeoxShape) -> Iterator[npt.NDArray[np.float32]]:
    for name, size in tensor_shapes(shape).items():
        generator = np.random.Generator(np.random.SFC64((_SEED, crc32(name.encode()))))
        drawn = generator.standard_normal(size, np.float32)
        if len(size) == 1:
            drawn *= _BIAS
            drawn += np.float32("norm" in name and name.endswith("weight"))
        elif name != "gpt_neox.embed_in.weight":
            drawn *= np.float32((2.0 if name == "embed_out.weight" else 1.0) / size[1] ** 0.5)
        if name == "embed_out.weight":
            drawn[0] = 0.0
        yield drawn


__all__ = ["SHAPES", "NeoxShape", "config", "merge_rule", "tensor_shapes", "tokenizer", "write_neox"]
