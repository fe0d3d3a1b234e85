"""A Hugging Face Llama folder (config.json, weights, tokenizer.json) -> decoder weights and configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.weights import Taker, Weights, read_json
from cellscribe.export.models.lingocell import DecoderConfig

# Our names -> those of LlamaForCausalLM, within a layer.
LINEARS = {
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
NORMS = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm"}
DROPPED = ("model.rotary_emb.", "rotary_emb.")


def read_llama_config(folder: Path, max_positions: int = 2048) -> DecoderConfig:
    """Read config.json.

    Raises
    ------
    CheckpointError
        When it is another architecture, or uses a feature that this decoder does not have.
    """
    path = folder / "config.json"
    config = read_json(path)
    if config.get("model_type") != "llama":
        raise CheckpointError(f"{path} says model_type {config.get('model_type')!r}; the decoder must be a Llama.")
    _refuse_unknown(config, path)
    rope = config.get("rope_parameters") or {}
    try:
        made = DecoderConfig(
            vocab_size=int(config["vocab_size"]),
            d_model=int(config["hidden_size"]),
            n_layers=int(config["num_hidden_layers"]),
            n_heads=int(config["num_attention_heads"]),
            n_kv_heads=int(config.get("num_key_value_heads") or config["num_attention_heads"]),
            d_ffn=int(config["intermediate_size"]),
            rope_theta=float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0),
            rms_norm_eps=float(config.get("rms_norm_eps") or 1e-6),
            tie_embeddings=bool(config.get("tie_word_embeddings", False)),
            max_positions=min(int(config.get("max_position_embeddings") or max_positions), max_positions),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} lacks or garbles {error}; take the file that belongs to the weights.") from error
    if made.d_model % made.n_heads or made.n_heads % made.n_kv_heads:
        raise CheckpointError(
            f"{path}: width {made.d_model}, {made.n_heads} heads and {made.n_kv_heads} key/value heads do not divide; "
            "take the file that belongs to the weights."
        )
    if config.get("head_dim") not in (None, made.d_head):
        raise CheckpointError(
            f"{path} sets head_dim {config['head_dim']}; only hidden_size / num_attention_heads is known."
        )
    return made


def _refuse_unknown(config: dict[str, Any], path: Path) -> None:
    ropes = [config.get(name) or {} for name in ("rope_scaling", "rope_parameters")]
    kinds = {rope.get("rope_type", rope.get("type", "default")) for rope in ropes} - {"default"}
    partial = {rope.get("partial_rotary_factor", 1.0) for rope in (*ropes, config)} - {1.0, None}
    for wrong, what in (
        (config.get("attention_bias"), "attention_bias"),
        (config.get("mlp_bias"), "mlp_bias"),
        (config.get("hidden_act", "silu") != "silu", f"hidden_act {config.get('hidden_act')!r}"),
        (kinds, f"rope scaling {min(kinds, default='')!r}"),
        (partial, "partial rotary embeddings"),
    ):
        if wrong:
            raise CheckpointError(
                f"{path} uses {what}, which this decoder does not have; choose a plain Llama checkpoint."
            )


def llama_state(weights: Weights, config: DecoderConfig, where: str) -> Weights:
    """Translate the weights of LlamaForCausalLM into the names of :class:`LingoDecoder` (without cross-attention)."""
    prefix = "model." if "model.embed_tokens.weight" in weights else ""
    taker = Taker(weights, where)
    state = {
        "embedding.weight": taker.take(f"{prefix}embed_tokens.weight"),
        "norm.weight": taker.take(f"{prefix}norm.weight"),
    }
    for i in range(config.n_layers):
        source = f"{prefix}layers.{i}."
        for ours, theirs in LINEARS.items():
            state[f"layers.{i}.{ours}.weight"] = taker.take_linear(f"{source}{theirs}.weight")
        for ours, theirs in NORMS.items():
            state[f"layers.{i}.{ours}.weight"] = taker.take(f"{source}{theirs}.weight")
    dropped = list(DROPPED) + [f"{prefix}layers.{i}.self_attn.rotary_emb." for i in range(config.n_layers)]
    if config.tie_embeddings:
        dropped.append("lm_head.")
    else:
        state["head.weight"] = taker.take_linear("lm_head.weight")
    taker.finish(dropped)
    return state
