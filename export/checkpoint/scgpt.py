"""A published scGPT folder (args.json, vocab.json, best_model.pt) -> encoder, vocabulary, cell input.

Attention weights come under three names, after the implementation that trained them; all three are read. Loading is
strict: a loader that skips what it does not recognise leaves random attention behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.weights import (
    Taker,
    Weights,
    as_weights,
    load_strict,
    read_json,
    read_pickled_tensors,
)
from cellscribe.export.models.scgpt import ScgptConfig, ScgptEncoder

# Training heads and batch labels: they act after the token states that inference reads.
DROPPED = ("decoder.", "cls_decoder.", "mvc_decoder.", "flag_encoder.", "grad_reverse_discriminator.", "batch_encoder.")


@dataclass(frozen=True)
class ScgptCheckpoint:
    """An encoder with the vocabulary (tokens in id order) and the cell input it was trained with."""

    encoder: ScgptEncoder
    tokens: tuple[str, ...]
    cells: CellInput


def read_scgpt(folder: Path, weights: Weights | None = None) -> ScgptCheckpoint:
    """Read a scGPT folder.

    Parameters
    ----------
    folder
        Holds args.json, vocab.json and, unless `weights` is given, best_model.pt.
    weights
        The encoder's state dict, when it comes out of another file.

    Raises
    ------
    CheckpointError
        When a file is missing or damaged, a tensor is missing, misshaped or unknown.
    """
    args, tokens = read_json(folder / "args.json"), read_vocabulary(folder / "vocab.json")
    if weights is None:
        weights = as_weights(read_pickled_tensors(folder / "best_model.pt"), folder / "best_model.pt")
    where = str(folder)
    config = _config(args, weights, len(tokens), where)
    with torch.device("meta"):
        encoder = ScgptEncoder(config)
    load_strict(encoder, _state(weights, config, where), where)
    return ScgptCheckpoint(encoder.eval(), tokens, _cell_input(args, config))


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Return the tokens of vocab.json (token -> id) in id order."""
    ids = read_json(path)
    if not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
        raise CheckpointError(f"{path} must map every token to one id from 0 on without gaps; take the training file.")
    for special in ("<pad>", "<cls>"):
        if special not in ids:
            raise CheckpointError(
                f"{path} has no token {special}; take the vocabulary that the encoder was trained with."
            )
    return tuple(sorted(ids, key=ids.__getitem__))


def _config(args: dict[str, Any], weights: Weights, n_tokens: int, where: str) -> ScgptConfig:
    style = args.get("input_emb_style", "continuous")
    if style not in ("continuous", "category", "scaling"):
        raise CheckpointError(
            f"{where}/args.json says input_emb_style {style!r}; continuous, category and scaling are known."
        )
    try:
        sizes = (int(args["embsize"]), int(args["nlayers"]), int(args["nheads"]), int(args["d_hid"]))
    except KeyError as error:
        raise CheckpointError(f"{where}/args.json has no {error}; take the file that training wrote.") from error
    table = weights.get("value_encoder.embedding.weight")
    n_values = 0 if table is None else int(table.shape[0])
    return ScgptConfig(n_tokens, *sizes, value_style=style, n_value_tokens=n_values)


def _cell_input(args: dict[str, Any], config: ScgptConfig) -> CellInput:
    """Scgpt's zero-shot layout: a cell's non-zero genes and binned counts.

    `<cls>` carries the padding value in the continuous style, as in scGPT's own embedding code, which knows no other
    style; 0 in the others.
    """
    pad_value = float(args.get("pad_value", -2))
    n_bins = int(args.get("n_bins") or 0) if args.get("input_style", "binned") == "binned" else 0
    return CellInput(
        layout="ragged",
        selection="all",
        num_genes=int(args.get("max_seq_len", 1200)) - 1,
        value_style=config.value_style,
        n_bins=n_bins,
        cls_value=pad_value if config.value_style == "continuous" else 0.0,
        pad_value=pad_value,
        target_sum=None,
        log1p=False,
    )


def _state(weights: Weights, config: ScgptConfig, where: str) -> Weights:
    """Translate scGPT's tensor names into the module's."""
    taker = Taker(weights, where)
    state = {
        "genes.embedding.weight": taker.take("encoder.embedding.weight"),
        "genes.norm.weight": taker.take("encoder.enc_norm.weight"),
        "genes.norm.bias": taker.take("encoder.enc_norm.bias"),
    }
    if config.value_style == "continuous":
        state |= _linear(taker, "value_encoder.linear1", "values.linear1")
        state |= _linear(taker, "value_encoder.linear2", "values.linear2")
        state |= _norm(taker, "value_encoder.norm", "values.norm")
    elif config.value_style == "category":
        state["values.embedding.weight"] = taker.take("value_encoder.embedding.weight")
        state |= _norm(taker, "value_encoder.enc_norm", "values.norm")
    for i in range(config.n_layers):
        state |= _layer(taker, f"transformer_encoder.layers.{i}.", f"layers.{i}.")
    taker.finish(DROPPED)
    return state


def _layer(taker: Taker, source: str, target: str) -> Weights:
    attention = source + "self_attn."
    inner = attention + ("_impl." if attention + "_impl.Wqkv.weight" in taker else "")
    if inner + "Wqkv.weight" in taker:
        qkv = {
            target + "qkv.weight": taker.take_linear(inner + "Wqkv.weight"),
            target + "qkv.bias": taker.take(inner + "Wqkv.bias"),
        }
    else:
        qkv = {
            target + "qkv.weight": taker.take_linear(attention + "in_proj_weight"),
            target + "qkv.bias": taker.take(attention + "in_proj_bias"),
        }
    state = qkv | _linear(taker, inner + "out_proj", target + "out")
    for name in ("linear1", "linear2"):
        state |= _linear(taker, source + name, target + name)
    for name in ("norm1", "norm2"):
        state |= _norm(taker, source + name, target + name)
    return state


def _linear(taker: Taker, source: str, target: str) -> Weights:
    return {f"{target}.weight": taker.take_linear(f"{source}.weight"), f"{target}.bias": taker.take(f"{source}.bias")}


def _norm(taker: Taker, source: str, target: str) -> Weights:
    return {f"{target}.{part}": taker.take(f"{source}.{part}") for part in ("weight", "bias")}
