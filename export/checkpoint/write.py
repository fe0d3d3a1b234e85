"""Writing checkpoints in the layouts that the readers know, for models trained with these modules."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from cellscribe.export.checkpoint.llama import LINEARS, NORMS
from cellscribe.export.checkpoint.weights import Weights
from cellscribe.export.models.lingocell import LingoDecoder
from cellscribe.export.models.scgpt import ScgptEncoder


def write_scgpt(folder: Path, encoder: ScgptEncoder, tokens: tuple[str, ...]) -> None:
    """Write args.json, vocab.json and best_model.pt in scGPT's published layout."""
    folder.mkdir(parents=True, exist_ok=True)
    config = encoder.config
    args = {
        "embsize": config.d_model,
        "nlayers": config.n_layers,
        "nheads": config.n_heads,
        "d_hid": config.d_ffn,
        "input_emb_style": config.value_style,
        "input_style": "binned",
        "n_bins": 51,
        "pad_value": -2,
        "max_seq_len": 1200,
    }
    (folder / "args.json").write_text(json.dumps(args, indent=1), encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, indent=1), encoding="utf-8")
    torch.save(_scgpt_state(encoder), folder / "best_model.pt")


def _scgpt_state(encoder: ScgptEncoder) -> Weights:
    state: Weights = {}
    for name, value in encoder.state_dict().items():
        if name.startswith("genes."):
            theirs = name.replace("genes.embedding", "encoder.embedding").replace("genes.norm", "encoder.enc_norm")
        elif name.startswith("values."):
            norm = "enc_norm" if encoder.config.value_style == "category" else "norm"
            theirs = name.replace("values.norm", f"values.{norm}").replace("values.", "value_encoder.")
        else:
            theirs = f"transformer_encoder.{name}".replace(".qkv.", ".self_attn.Wqkv.").replace(
                ".out.", ".self_attn.out_proj."
            )
        is_linear = value.ndim == 2 and "embedding" not in name
        state[theirs] = (value.t() if is_linear else value).contiguous()
    return state


def write_llama(folder: Path, decoder: LingoDecoder, tokenizer_json: str, *, bos_id: int, eos_id: int) -> None:
    """Write config.json, model.safetensors and tokenizer.json of a Hugging Face Llama folder."""
    folder.mkdir(parents=True, exist_ok=True)
    c = decoder.config
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": c.vocab_size,
        "hidden_size": c.d_model,
        "intermediate_size": c.d_ffn,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_kv_heads,
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta,
        "hidden_act": "silu",
        "tie_word_embeddings": c.tie_embeddings,
        "max_position_embeddings": c.max_positions,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    save_file(_llama_state(decoder), folder / "model.safetensors", metadata={"format": "pt"})


def _llama_state(decoder: LingoDecoder) -> Weights:
    state: Weights = {
        "model.embed_tokens.weight": decoder.embedding.weight.data,
        "model.norm.weight": decoder.norm.weight.data,
    }
    if decoder.head is not None:
        state["lm_head.weight"] = decoder.head.weight.data.t().contiguous()
    for i, layer in enumerate(decoder.blocks):
        for ours, theirs in LINEARS.items():
            part, name = ours.split(".")
            weight = getattr(getattr(layer, part), name).weight.data
            state[f"model.layers.{i}.{theirs}.weight"] = weight.t().contiguous()
        for ours, theirs in NORMS.items():
            state[f"model.layers.{i}.{theirs}.weight"] = getattr(layer, ours).weight.data
    return state
