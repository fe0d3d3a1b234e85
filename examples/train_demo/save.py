"""Write the trained pair as a LingoCell checkpoint folder, which ``cellscribe export`` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from binning import N_BINS
from network import MAX_POSITIONS
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokens import END, PROMPT, START
from torch import Tensor

from cellscribe.engine.cells.spec import CellInput
from cellscribe.export.checkpoint.lingocell import save_cross_attention, write_about
from cellscribe.export.models.lingocell import LingoDecoder
from cellscribe.export.models.scgpt import ScgptEncoder

PAD_VALUE = -2.0
_LLAMA = {
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}


def save(
    folder: Path, encoder: ScgptEncoder, decoder: LingoDecoder, tokenizer: Tokenizer, genes: Sequence[str]
) -> None:
    """Write encoder/, decoder/, cross_attention.safetensors and lingocell.json."""
    for part in ("encoder", "decoder"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    _save_encoder(folder / "encoder", encoder, genes)
    _save_decoder(folder / "decoder", decoder)
    tokenizer.save(str(folder / "decoder" / "tokenizer.json"), pretty=False)
    save_cross_attention(decoder, folder / "cross_attention.safetensors")
    cells = CellInput("fixed", "list", len(genes), n_bins=N_BINS, cls_value=0.0, pad_value=PAD_VALUE)
    assert decoder.cross_config is not None
    write_about(folder, decoder.cross_config, cells, list(genes), PROMPT)


def encoder_state(encoder: ScgptEncoder) -> dict[str, Tensor]:
    """Name the encoder's tensors as scGPT's published checkpoints do; linear weights become [d_out, d_in]."""
    state = {}
    for name, value in encoder.state_dict().items():
        name = name.replace("genes.embedding", "encoder.embedding").replace("genes.norm", "encoder.enc_norm")
        name = name.replace("values.", "value_encoder.").replace("layers.", "transformer_encoder.layers.")
        name = name.replace(".qkv.", ".self_attn.Wqkv.").replace(".out.", ".self_attn.out_proj.")
        is_linear = value.dim() == 2 and "embedding" not in name
        state[name] = (value.t() if is_linear else value).detach().contiguous()
    return state


def _save_encoder(folder: Path, encoder: ScgptEncoder, genes: Sequence[str]) -> None:
    config = encoder.config
    args = {
        "input_style": "binned",
        "input_emb_style": config.value_style,
        "n_bins": N_BINS,
        "max_seq_len": len(genes) + 1,
        "pad_token": "<pad>",
        "pad_value": PAD_VALUE,
        "nlayers": config.n_layers,
        "nheads": config.n_heads,
        "embsize": config.d_model,
        "d_hid": config.d_ffn,
    }
    tokens = ["<cls>", *genes, "<pad>", "<eoc>"]
    (folder / "args.json").write_text(json.dumps(args, indent=1), encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, indent=0), encoding="utf-8")
    torch.save(encoder_state(encoder), folder / "best_model.pt")


def _save_decoder(folder: Path, decoder: LingoDecoder) -> None:
    config = decoder.config
    about = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ffn,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": START,
        "eos_token_id": END,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    state = {"model.embed_tokens.weight": decoder.embedding.weight, "model.norm.weight": decoder.norm.weight}
    for name, value in decoder.state_dict().items():
        if name.startswith("layers.") and ".cross." not in name:
            _, layer, rest = name.split(".", 2)
            part = rest.removesuffix(".weight")
            state[f"model.layers.{layer}.{_LLAMA[part]}.weight"] = value.t() if value.dim() == 2 else value
    if decoder.head is not None:
        state["lm_head.weight"] = decoder.head.weight.t()
    save_file({name: value.detach().contiguous() for name, value in state.items()}, folder / "model.safetensors")
