"""Hugging Face T5s: configuration and weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.weights import Taker, Weights, load_strict, read_folder_weights, read_json
from cellscribe.export.models.t5 import T5, T5Config

# What T5Config holds where config.json says nothing (transformers.T5Config, checked with 4.57 and 5).
_DEFAULTS: dict[str, Any] = {
    "d_model": 512, "d_kv": 64, "num_heads": 8, "d_ff": 2048, "num_layers": 6, "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6, "feed_forward_proj": "relu",
    "tie_word_embeddings": True, "vocab_size": 32128,
}  # fmt: skip
_FEED_FORWARDS = ("relu", "gated-gelu")


def t5_config(raw: dict[str, Any], where: str) -> T5Config:
    """Read sizes; those that are left out are transformers' defaults.

    Raises
    ------
    CheckpointError
        For a feed-forward that is not known, or a size that is none.
    """
    values = _DEFAULTS | {name: value for name, value in raw.items() if value is not None}
    kind = values["feed_forward_proj"]
    if kind not in _FEED_FORWARDS:
        raise CheckpointError(
            f"{where} says feed_forward_proj {kind!r}; only {' and '.join(_FEED_FORWARDS)} are known."
        )
    try:
        return T5Config(
            vocab_size=int(values["vocab_size"]),
            d_model=int(values["d_model"]),
            d_head=int(values["d_kv"]),
            n_heads=int(values["num_heads"]),
            d_ffn=int(values["d_ff"]),
            n_layers=int(values["num_layers"]),
            n_decoder_layers=int(values.get("num_decoder_layers") or values["num_layers"]),
            buckets=int(values["relative_attention_num_buckets"]),
            max_distance=int(values["relative_attention_max_distance"]),
            norm_eps=float(values["layer_norm_epsilon"]),
            feed_forward=cast(Literal["relu", "gated-gelu"], kind),
            tie_embeddings=bool(values["tie_word_embeddings"]),
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{where} garbles a size ({error}); take the file that belongs to the weights."
        ) from error


def read_t5(folder: Path) -> T5:
    """Read a T5 from its folder.

    Raises
    ------
    CheckpointError
        When it is another architecture, or a tensor is missing, misshaped or left over.
    """
    raw = read_json(folder / "config.json")
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind != "t5":
        raise CheckpointError(f"{folder / 'config.json'} says model_type {kind!r}; choose a folder of a T5.")
    taker = Taker(read_folder_weights(folder), str(folder))
    t5 = take_t5(taker, t5_config(raw, str(folder / "config.json")), "", str(folder))
    taker.finish(())
    return t5


def take_t5(taker: Taker, config: T5Config, at: str, where: str) -> T5:
    """Take a T5's tensors, whose names begin with `at`, and make it."""
    with torch.device("meta"):
        t5 = T5(config)
    state: Weights = {"embedding.weight": taker.take(f"{at}shared.weight")}
    for stack in ("encoder", "decoder"):
        copy = f"{at}{stack}.embed_tokens.weight"
        if copy in taker:
            taker.take(copy)  # the shared one again
        state |= dict(_stack(taker, config, t5, at, stack))
    head = f"{at}lm_head.weight"
    if not config.tie_embeddings:
        state["head.weight"] = taker.take_linear(head)
    elif head in taker:
        taker.take(head)
    load_strict(t5, state, where)
    return t5.eval()


def _stack(taker: Taker, config: T5Config, t5: T5, at: str, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    is_decoder, module = name == "decoder", getattr(t5, name)
    bias = taker.take(f"{at}{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    yield f"{name}.bias.table", module.bias.rows_of(bias)
    for i in range(config.n_decoder_layers if is_decoder else config.n_layers):
        source, ours = f"{at}{name}.block.{i}.layer.", f"{name}.layers.{i}."
        parts = [("SelfAttention", "norm1", "attention")]
        parts += [("EncDecAttention", "norm_cross", "cross")] if is_decoder else []
        for place, (theirs, norm, attention) in enumerate(parts):
            yield f"{ours}{norm}.weight", taker.take(f"{source}{place}.layer_norm.weight")
            for letter, mine in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out")):
                yield f"{ours}{attention}.{mine}.weight", taker.take_linear(f"{source}{place}.{theirs}.{letter}.weight")
        last = f"{source}{len(parts)}."
        yield f"{ours}norm2.weight", taker.take(f"{last}layer_norm.weight")
        maps = (
            {"up": "wi", "down": "wo"}
            if config.feed_forward == "relu"
            else {"gate": "wi_0", "up": "wi_1", "down": "wo"}
        )
        for mine, theirs in maps.items():
            yield f"{ours}feed_forward.{mine}.weight", taker.take_linear(f"{last}DenseReluDense.{theirs}.weight")
    yield f"{name}.norm.weight", taker.take(f"{at}{name}.final_layer_norm.weight")
