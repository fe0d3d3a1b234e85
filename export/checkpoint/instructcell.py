"""InstructCell checkpoints: configuration, T5, cell tower, and the decoder of expression profiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.t5 import t5_config, take_t5
from cellscribe.export.checkpoint.weights import Taker, Weights, load_strict, read_folder_weights, read_json
from cellscribe.export.models.bert import BertConfig
from cellscribe.export.models.instructcell import CellTower, ProfileDecoder, TowerConfig
from cellscribe.export.models.t5 import T5, T5Config

_AT = "assistant."
# Encoders of the training, and what the decoder of a dispersion by gene never reads.
_DROPPED = ("z_encoder.", "l_encoder.", "decoder.px_r_decoder.")


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens around cells: the placeholder of one that is read, the signal of one that is to be written."""

    start: int
    end: int
    placeholder: int
    signal: int


@dataclass
class InstructParts:
    """What a bundle of InstructCell is made of.

    `library` are mean and variance of the log library size; `decoder` is None where the checkpoint writes no cells.
    """

    t5: T5
    tower: CellTower
    decoder: ProfileDecoder | None
    library: tuple[float, float]
    n_latent: int
    tokens: SpecialTokens
    notes: str = ""


def read_instructcell(folder: Path) -> InstructParts:
    """Read a checkpoint in InstructCell's layout.

    Raises
    ------
    CheckpointError
        When it is another architecture or task layout, or a tensor is missing, misshaped or left over.
    """
    path = folder / "config.json"
    raw = read_json(path)
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind != "instructcell":
        raise CheckpointError(f"{path} says model_type {kind!r}; choose a checkpoint of InstructCell.")
    weights = read_folder_weights(folder)
    at = _AT if any(name.startswith(_AT) for name in weights) else ""
    taker = Taker(weights, str(folder))
    try:
        base, former, profile = (raw[f"{n}_config"] for n in ("base_model", "feature_encoder", "feature_decoder"))
        tokens = _tokens(base)
        config = t5_config(base, str(path))
        tower = _tower(taker, former, config, f"{at}feature_encoder.", str(folder))
        decoder, library = _decoder(taker, profile, config, tower.config.n_genes, f"{at}feature_decoder.", str(folder))
        n_latent = int(profile["n_latent"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} lacks or garbles {error}; take the file that belongs to the weights.") from error
    if not raw.get("normalize_total", True) or not raw.get("log_variational", True):
        raise CheckpointError(f"{path} asks for counts that are not normalised and logged; only those are known.")
    t5 = take_t5(taker, config, f"{at}base_model.", str(folder))
    taker.finish(f"{at}feature_decoder.base_model.{name}" for name in _DROPPED)
    return InstructParts(t5, tower, decoder, library, n_latent, tokens)


def _tokens(base: dict[str, Any]) -> SpecialTokens:
    if int(base.get("num_signal_tokens", 1)) != 1:
        raise ValueError(f"num_signal_tokens {base['num_signal_tokens']}, where one is known")
    ids = base["special_tokens_index_dict"]
    return SpecialTokens(*(int(ids[name]) for name in ("start_tag", "end_tag", "placeholder", "first_signal_token")))


def _tower(taker: Taker, raw: dict[str, Any], t5: T5Config, at: str, where: str) -> CellTower:
    if not raw.get("is_q_former_encoder", True):
        raise CheckpointError(f"{where} encodes cells without a Q-Former; only checkpoints with one are known.")
    d = t5.d_model
    former = BertConfig(0, d, int(raw["num_hidden_layers"]), t5.n_heads, 4 * d, 0, "gelu", 1e-12, d_memory=d)
    config = TowerConfig(
        int(raw["count_dim"]), int(raw["num_blocks"]), int(raw["num_key_value_tokens"]), int(raw["num_query_tokens"]),
        former, int(raw["cross_attention_frequency"]),
    )  # fmt: skip
    with torch.device("meta"):
        tower = CellTower(config)
    state: Weights = {"queries": taker.take(f"{at}query_tokens"), **taker.named(f"{at}layernorm", "norm")}
    for i in range(config.n_blocks):
        state |= taker.dense(f"{at}cell_encoder.{i}.linear", f"blocks.{i}")
    for i in range(former.n_layers):
        source, ours = f"{at}encoder.layer.{i}.", f"layers.{i}."
        own = f"{source}attention."
        state |= taker.joined([f"{own}attention.{name}" for name in ("query", "key", "value")], f"{ours}qkv")
        state |= taker.dense(f"{own}output.dense", f"{ours}out")
        state |= taker.named(f"{own}output.LayerNorm", f"{ours}norm1")
        if i % config.cross_every == 0:
            other = f"{source}crossattention."
            state |= taker.dense(f"{other}attention.query", f"{ours}cross.q")
            state |= taker.joined([f"{other}attention.{name}" for name in ("key", "value")], f"{ours}cross.kv")
            state |= taker.dense(f"{other}output.dense", f"{ours}cross.out")
            state |= taker.named(f"{other}output.LayerNorm", f"{ours}cross.norm")
        state |= taker.dense(f"{source}intermediate_query.dense", f"{ours}linear1")
        state |= taker.dense(f"{source}output_query.dense", f"{ours}linear2")
        state |= taker.named(f"{source}output_query.LayerNorm", f"{ours}norm2")
    load_strict(tower, state, where)
    return tower.eval()


def _decoder(
    taker: Taker, raw: dict[str, Any], t5: T5Config, n_genes: int, at: str, where: str
) -> tuple[ProfileDecoder, tuple[float, float]]:
    if not raw.get("adaptive_library", True) or raw.get("use_layer_norm") not in ("both", "decoder"):
        raise CheckpointError(
            f"{where} decodes cells in a way that is not known; only adaptive libraries with layer norm are."
        )
    layers = int(raw["n_layers"])
    sizes = (int(raw["condition_input_dim"]), int(raw["n_latent"]), int(raw["n_hidden"]), layers)
    with torch.device("meta"):
        decoder = ProfileDecoder(t5.d_model, *sizes, n_genes)
    base = f"{at}base_model."
    state = taker.dense(f"{at}mapping_layer", "mapping")
    for i in range(layers):
        state |= taker.dense(f"{base}decoder.px_decoder.fc_layers.Layer {i}.0", f"hidden.{i}")
    state |= taker.dense(f"{base}decoder.px_scale_decoder.0", "scale")
    state |= taker.dense(f"{base}decoder.px_dropout_decoder", "dropout")
    state |= taker.dense(f"{base}library_decoder.0", "library1")
    state |= taker.dense(f"{base}library_decoder.3", "library2")
    state["log_theta"] = taker.take(f"{base}px_r")
    load_strict(decoder, state, where)
    means, variances = (taker.take(f"{base}library_log_{name}") for name in ("means", "vars"))
    return decoder.eval(), (float(means.ravel()[0]), float(variances.ravel()[0]))
