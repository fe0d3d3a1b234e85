"""Hugging Face folders of GPT-2, GPT-NeoX and Gemma-2 (Cell2Sentence and C2S-Scale): configuration and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.weights import Taker, Weights, load_strict, read_folder_weights, read_json
from cellscribe.export.models.causal import CausalConfig, CausalDecoder

_ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu",
}  # fmt: skip


def read_causal(folder: Path) -> CausalDecoder:
    """Read a decoder with its weights.

    Raises
    ------
    CheckpointError
        When it is another architecture, uses what this decoder does not have, or when a tensor is missing or left over.
    """
    path = folder / "config.json"
    raw = read_json(path)
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind not in _KINDS:
        raise CheckpointError(f"{path} says model_type {kind!r}; choose a checkpoint of {', '.join(sorted(_KINDS))}.")
    configure, translate = _KINDS[kind]
    try:
        config = configure(raw, path)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} lacks or garbles {error}; take the file that belongs to the weights.") from error
    _check(config, path)
    state = translate(read_folder_weights(folder), config, str(folder))
    with torch.device("meta"):
        decoder = CausalDecoder(config)
    load_strict(decoder, state, str(folder))
    decoder.restore_tables()
    return decoder.eval()


def gpt2_config(raw: dict[str, Any], path: Path) -> CausalConfig:
    """Read the configuration of a GPT-2."""
    _refuse(path, {
        "scale_attn_by_inverse_layer_idx": raw.get("scale_attn_by_inverse_layer_idx"),
        "add_cross_attention": raw.get("add_cross_attention"),
        "scale_attn_weights false": not raw.get("scale_attn_weights", True),
    })  # fmt: skip
    d, heads = int(raw["n_embd"]), int(raw["n_head"])
    return CausalConfig(
        vocab_size=int(raw["vocab_size"]), d_model=d, n_layers=int(raw["n_layer"]), n_heads=heads, n_kv_heads=heads,
        d_head=d // heads, d_ffn=int(raw.get("n_inner") or 4 * d), max_positions=int(raw["n_positions"]),
        norm_eps=float(raw.get("layer_norm_epsilon", 1e-5)),
        activation=_activation(raw.get("activation_function", "gelu_new"), path), learned_positions=True,
        tie_embeddings=bool(raw.get("tie_word_embeddings", True)),
    )  # fmt: skip


def neox_config(raw: dict[str, Any], path: Path) -> CausalConfig:
    """Read the configuration of a GPT-NeoX, in the form of transformers 4 or 5."""
    rope = _rope(raw, path)
    d, heads = int(raw["hidden_size"]), int(raw["num_attention_heads"])
    share = raw.get("rotary_pct", rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 0.25)))
    _refuse(path, {"attention_bias false": not raw.get("attention_bias", True)})
    return CausalConfig(
        vocab_size=int(raw["vocab_size"]), d_model=d, n_layers=int(raw["num_hidden_layers"]), n_heads=heads,
        n_kv_heads=heads, d_head=d // heads, d_ffn=int(raw["intermediate_size"]),
        max_positions=int(raw["max_position_embeddings"]), norm_eps=float(raw.get("layer_norm_eps", 1e-5)),
        activation=_activation(raw.get("hidden_act", "gelu"), path),
        is_parallel=bool(raw.get("use_parallel_residual", True)), rotary_width=int(d // heads * float(share)),
        rope_theta=float(raw.get("rotary_emb_base") or rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
        tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
    )  # fmt: skip


def gemma2_config(raw: dict[str, Any], path: Path) -> CausalConfig:
    """Read the configuration of a Gemma-2."""
    rope = _rope(raw, path)
    _refuse(path, {
        "attention_bias": raw.get("attention_bias"),
        "bidirectional attention": raw.get("use_bidirectional_attention"),
    })  # fmt: skip
    layers, kinds = int(raw["num_hidden_layers"]), raw.get("layer_types")
    if kinds is not None and kinds != [("full", "sliding")[i % 2 == 0] + "_attention" for i in range(layers)]:
        raise CheckpointError(f"{path} orders its layers otherwise than Gemma-2; choose a Gemma-2 checkpoint.")
    d, head = int(raw["hidden_size"]), int(raw["head_dim"])
    return CausalConfig(
        vocab_size=int(raw["vocab_size"]), d_model=d, n_layers=layers, n_heads=int(raw["num_attention_heads"]),
        n_kv_heads=int(raw["num_key_value_heads"]), d_head=head, d_ffn=int(raw["intermediate_size"]),
        max_positions=int(raw["max_position_embeddings"]), norm="rms", norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        activation=_activation(raw.get("hidden_activation") or raw.get("hidden_act") or "gelu_pytorch_tanh", path),
        is_gated=True, has_post_norms=True, has_biases=False, rotary_width=head,
        rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        tie_embeddings=bool(raw.get("tie_word_embeddings", True)), embedding_scale=d**0.5,
        query_scale=float(raw.get("query_pre_attn_scalar", head)) ** -0.5,
        attention_cap=float(raw.get("attn_logit_softcapping") or 0.0),
        logits_cap=float(raw.get("final_logit_softcapping") or 0.0), window=int(raw.get("sliding_window") or 0),
    )  # fmt: skip


def gpt2_state(weights: Weights, config: CausalConfig, where: str) -> Weights:
    """Translate the weights of GPT2LMHeadModel; its linear weights lie as [d_in, d_out] already."""
    taker = Taker(weights, where)
    at = "transformer." if "transformer.wte.weight" in taker else ""
    state = {"embedding.weight": taker.take(f"{at}wte.weight"), "positions.weight": taker.take(f"{at}wpe.weight")}
    state |= _pair(taker, f"{at}ln_f", "norm")
    for i in range(config.n_layers):
        source, ours = f"{at}h.{i}.", f"layers.{i}."
        for theirs, name in (("ln_1", "norm1"), ("ln_2", "norm2")):
            state |= _pair(taker, f"{source}{theirs}", f"{ours}{name}")
        for part in ("weight", "bias"):
            for name, tensor in zip("qkv", taker.take(f"{source}attn.c_attn.{part}").chunk(3, -1), strict=True):
                state[f"{ours}attention.{name}.{part}"] = tensor.contiguous()
        for theirs, name in (
            ("attn.c_proj", "attention.out"),
            ("mlp.c_fc", "feed_forward.up"),
            ("mlp.c_proj", "feed_forward.down"),
        ):
            state |= _pair(taker, f"{source}{theirs}", f"{ours}{name}")
    _finish(
        taker,
        state,
        config,
        "lm_head.weight",
        [f"{at}h.{i}.attn.{x}" for i in range(config.n_layers) for x in ("bias", "masked_bias")],
    )
    return state


def neox_state(weights: Weights, config: CausalConfig, where: str) -> Weights:
    """Translate the weights of GPTNeoXForCausalLM, whose queries, keys and values lie head by head in one tensor."""
    taker = Taker(weights, where)
    at = "gpt_neox." if "gpt_neox.embed_in.weight" in taker else ""
    state = {"embedding.weight": taker.take(f"{at}embed_in.weight")}
    state |= _pair(taker, f"{at}final_layer_norm", "norm")
    for i in range(config.n_layers):
        source, ours = f"{at}layers.{i}.", f"layers.{i}."
        for theirs, name in (("input_layernorm", "norm1"), ("post_attention_layernorm", "norm2")):
            state |= _pair(taker, f"{source}{theirs}", f"{ours}{name}")
        for part in ("weight", "bias"):
            whole = taker.take(f"{source}attention.query_key_value.{part}")
            heads = whole.reshape(config.n_heads, 3, config.d_head, -1)
            for n, name in enumerate("qkv"):
                tensor = heads[:, n].reshape(config.n_heads * config.d_head, -1)
                state[f"{ours}attention.{name}.{part}"] = (
                    tensor.t() if part == "weight" else tensor[:, 0]
                ).contiguous()
        for theirs, name in (
            ("attention.dense", "attention.out"),
            ("mlp.dense_h_to_4h", "feed_forward.up"),
            ("mlp.dense_4h_to_h", "feed_forward.down"),
        ):
            state[f"{ours}{name}.weight"] = taker.take_linear(f"{source}{theirs}.weight")
            state[f"{ours}{name}.bias"] = taker.take(f"{source}{theirs}.bias")
    dropped = [
        f"{at}layers.{i}.attention.{x}" for i in range(config.n_layers) for x in ("bias", "masked_bias", "rotary_emb.")
    ]
    _finish(taker, state, config, "embed_out.weight", dropped)
    return state


def gemma2_state(weights: Weights, config: CausalConfig, where: str) -> Weights:
    """Translate the weights of Gemma2ForCausalLM, whose norms multiply by one more than they store."""
    taker = Taker(weights, where)
    at = "model." if "model.embed_tokens.weight" in taker else ""
    state = {
        "embedding.weight": taker.take(f"{at}embed_tokens.weight"),
        "norm.weight": taker.take(f"{at}norm.weight") + 1,
    }
    for i in range(config.n_layers):
        source, ours = f"{at}layers.{i}.", f"layers.{i}."
        for theirs, name in (
            ("input_layernorm", "norm1"),
            ("post_attention_layernorm", "post1"),
            ("pre_feedforward_layernorm", "norm2"),
            ("post_feedforward_layernorm", "post2"),
        ):
            state[f"{ours}{name}.weight"] = taker.take(f"{source}{theirs}.weight") + 1
        for theirs, name in (
            ("self_attn.q_proj", "attention.q"), ("self_attn.k_proj", "attention.k"),
            ("self_attn.v_proj", "attention.v"), ("self_attn.o_proj", "attention.out"),
            ("mlp.gate_proj", "feed_forward.gate"),
            ("mlp.up_proj", "feed_forward.up"), ("mlp.down_proj", "feed_forward.down"),
        ):  # fmt: skip
            state[f"{ours}{name}.weight"] = taker.take_linear(f"{source}{theirs}.weight")
    _finish(
        taker,
        state,
        config,
        "lm_head.weight",
        [f"{at}layers.{i}.self_attn.rotary_emb." for i in range(config.n_layers)],
    )
    return state


_KINDS: dict[
    str, tuple[Callable[[dict[str, Any], Path], CausalConfig], Callable[[Weights, CausalConfig, str], Weights]]
]
_KINDS = {
    "gpt2": (gpt2_config, gpt2_state),
    "gpt_neox": (neox_config, neox_state),
    "gemma2": (gemma2_config, gemma2_state),
}


def _pair(taker: Taker, theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.{part}": taker.take(f"{theirs}.{part}") for part in ("weight", "bias")}


def _finish(taker: Taker, state: Weights, config: CausalConfig, head: str, dropped: list[str]) -> None:
    if config.tie_embeddings:
        dropped = [*dropped, head]
    else:
        state["head.weight"] = taker.take_linear(head)
    taker.finish(dropped)


def _activation(name: str, path: Path) -> Any:
    if name not in _ACTIVATIONS:
        raise CheckpointError(f"{path} uses the activation {name!r}; known are {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]


def _rope(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    rope: dict[str, Any] = raw.get("rope_parameters") or {}
    scaling = raw.get("rope_scaling") or {}
    kinds = {one.get("rope_type", one.get("type", "default")) for one in (rope, scaling)} - {"default"}
    _refuse(path, {f"rope scaling {min(kinds, default='')!r}": bool(kinds)})
    return rope


def _refuse(path: Path, wrong: dict[str, Any]) -> None:
    for what, is_used in wrong.items():
        if is_used:
            raise CheckpointError(f"{path} uses {what}, which this decoder does not have; choose a plain checkpoint.")


def _check(config: CausalConfig, path: Path) -> None:
    sizes = (config.vocab_size, config.n_layers, config.n_heads, config.n_kv_heads, config.d_head, config.d_ffn)
    fits = min(*sizes, config.max_positions) > 0 and config.n_heads % max(1, config.n_kv_heads) == 0
    if not fits or config.rotary_width % 2 or (not config.has_post_norms and config.d_model % config.n_heads):
        raise CheckpointError(
            f"{path}: width {config.d_model}, {config.n_heads} heads of {config.d_head} and {config.n_kv_heads} "
            "key/value heads do not fit together; take the file that belongs to the weights."
        )
