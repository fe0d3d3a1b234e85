"""Hugging Face folders of BERT (Geneformer, and the two encoders of LangCell): configuration and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.weights import Taker, Weights, load_strict, read_folder_weights, read_json
from cellscribe.export.models.bert import Activation, Bert, BertConfig

# Heads of pre-training and poolers act after the states that inference reads; a buffer of numbers from 0 on.
DROPPED = ("pooler.", "cls.", "classifier.", "embeddings.position_ids")


def read_bert(folder: Path, *, is_cross: bool = False, num_layers: int | None = None) -> Bert:
    """Read a BERT with its weights.

    Parameters
    ----------
    folder
        Holds config.json and model.safetensors or pytorch_model.bin.
    is_cross
        Whether every layer attends across, to states of `encoder_width` numbers.
    num_layers
        Keep only the first so many layers.

    Raises
    ------
    CheckpointError
        When it is another architecture, or when a tensor is missing, misshaped or left over.
    """
    path = folder / "config.json"
    raw = read_json(path)
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind != "bert":
        raise CheckpointError(f"{path} says model_type {kind!r}; choose a folder of a BERT.")
    try:
        config = _config(raw, path, is_cross, num_layers)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} lacks or garbles {error}; take the file that belongs to the weights.") from error
    state = _state(read_folder_weights(folder), config, int(raw["num_hidden_layers"]), str(folder))
    with torch.device("meta"):
        bert = Bert(config)
    load_strict(bert, state, str(folder))
    return bert.eval()


def _config(raw: dict[str, Any], path: Path, is_cross: bool, num_layers: int | None) -> BertConfig:
    activation = raw.get("hidden_act", "gelu")
    if activation not in ("relu", "gelu"):
        raise CheckpointError(f"{path} says hidden_act {activation!r}; only relu and gelu are known.")
    positions = raw.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise CheckpointError(f"{path} says position_embedding_type {positions!r}; only absolute is known.")
    layers = int(raw["num_hidden_layers"])
    if num_layers is not None and not 1 <= num_layers <= layers:
        raise CheckpointError(f"{path} has {layers} layers; {num_layers} of them cannot be kept.")
    return BertConfig(
        vocab_size=int(raw["vocab_size"]),
        d_model=int(raw["hidden_size"]),
        n_layers=num_layers or layers,
        n_heads=int(raw["num_attention_heads"]),
        d_ffn=int(raw["intermediate_size"]),
        max_positions=int(raw["max_position_embeddings"]),
        activation=cast(Activation, activation),
        norm_eps=float(raw.get("layer_norm_eps", 1e-12)),
        d_memory=int(raw.get("encoder_width") or raw["hidden_size"]) if is_cross else 0,
    )


def _state(weights: Weights, config: BertConfig, stored_layers: int, where: str) -> Weights:
    taker = Taker(weights, where)
    at = "bert." if "bert.embeddings.word_embeddings.weight" in taker else ""
    positions = taker.take(f"{at}embeddings.position_embeddings.weight")
    types = f"{at}embeddings.token_type_embeddings.weight"
    state = {
        "embedding.weight": taker.take(f"{at}embeddings.word_embeddings.weight"),
        "positions.weight": positions + taker.take(types)[0] if types in taker else positions,
        **taker.named(f"{at}embeddings.LayerNorm", "norm"),
    }
    for i in range(config.n_layers):
        source, ours = f"{at}encoder.layer.{i}.", f"layers.{i}."
        state |= taker.joined([f"{source}attention.self.{name}" for name in ("query", "key", "value")], f"{ours}qkv")
        state |= taker.dense(f"{source}attention.output.dense", f"{ours}out")
        state |= taker.named(f"{source}attention.output.LayerNorm", f"{ours}norm1")
        if config.d_memory:
            across = f"{source}crossattention."
            state |= taker.dense(f"{across}self.query", f"{ours}cross.q")
            state |= taker.joined([f"{across}self.{name}" for name in ("key", "value")], f"{ours}cross.kv")
            state |= taker.dense(f"{across}output.dense", f"{ours}cross.out")
            state |= taker.named(f"{across}output.LayerNorm", f"{ours}cross.norm")
        state |= taker.dense(f"{source}intermediate.dense", f"{ours}linear1")
        state |= taker.dense(f"{source}output.dense", f"{ours}linear2")
        state |= taker.named(f"{source}output.LayerNorm", f"{ours}norm2")
    above = [f"{at}encoder.layer.{i}." for i in range(config.n_layers, stored_layers)]
    taker.finish([*(f"{at}{name}" for name in DROPPED), *DROPPED, *above])
    return state
