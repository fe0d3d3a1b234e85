"""Writes a Hugging Face Llama or GPT-NeoX as GGUF, and quantises it with llama.cpp's own quantiser.

Of a Llama llama.cpp rotates neighbouring pairs of a head's numbers where Hugging Face rotates its halves, so the rows
of the query and key weights change places. Of a GPT-NeoX it rotates halves too, but takes the queries of all heads,
then the keys, then the values, where Hugging Face goes head by head.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_QUANTISED = {"Q8_0": 7, "Q4_0": 2}  # LLAMA_FTYPE_MOSTLY_*
_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}  # fmt: skip
_OUTER = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", "embed_out": "output",
}  # fmt: skip


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a Hugging Face weight or bias."""
    stem, kind = name.rsplit(".", 1)
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{kind}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{_NAMES[inner]}.{kind}"


def interleaved(weight: npt.NDArray[np.float32], n_heads: int) -> npt.NDArray[np.float32]:
    """Reorder the rows [H * D, d] of a query or key weight from halves to neighbouring pairs."""
    rows, width = weight.shape
    halves = weight.reshape(n_heads, 2, rows // n_heads // 2, width)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, width))


def by_part(fused: npt.NDArray[np.float32], n_heads: int) -> npt.NDArray[np.float32]:
    """Reorder the rows [H * 3 * D, ...] of a fused weight or bias from head by head to queries, keys, values."""
    parts = fused.reshape(n_heads, 3, -1, *fused.shape[1:]).swapaxes(0, 1)
    return np.ascontiguousarray(parts.reshape(fused.shape))


def write_gguf(source: Path, path: Path, precision: str) -> None:
    """Write `F32` or `F16`."""
    import gguf
    from safetensors import safe_open

    config = json.loads((source / "config.json").read_text())
    is_llama = config["model_type"] == "llama"
    writer = gguf.GGUFWriter(path, "llama" if is_llama else "gptneox", use_temp_file=False)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(0 if precision == "F32" else 1)
    (_add_llama if is_llama else _add_neox)(writer, config)
    with safe_open(source / "model.safetensors", "np") as file:
        for name in file.keys():  # noqa: SIM118
            weight = reordered(name, file.get_tensor(name), config)
            if precision == "F16" and weight.ndim > 1:
                weight = weight.astype(np.float16)
            writer.add_tensor(gguf_name(name), weight)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    writer.close()


def reordered(name: str, weight: npt.NDArray[np.float32], config: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Return a weight as llama.cpp wants its rows."""
    part = name.split(".")[-2]
    if part in ("q_proj", "k_proj"):
        return interleaved(weight, config["num_attention_heads" if part == "q_proj" else "num_key_value_heads"])
    return by_part(weight, config["num_attention_heads"]) if part == "query_key_value" else weight


def _add_llama(writer: Any, config: Mapping[str, Any]) -> None:
    import gguf

    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    words = [f"w{i}" for i in range(config["vocab_size"])]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[1] * (len(words) - 3)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _add_neox(writer: Any, config: Mapping[str, Any]) -> None:
    import gguf

    width = config["hidden_size"] // config["num_attention_heads"]
    writer.add_rope_dimension_count(int(width * config["rotary_pct"]))
    writer.add_rope_freq_base(config["rotary_emb_base"])
    writer.add_parallel_residual(config["use_parallel_residual"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    words = [f"w{i}" for i in range(config["vocab_size"])]  # prompts are token ids, so that any words will do
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL, *[1] * (len(words) - 1)])
    writer.add_token_merges(["w 0"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])


def quantise(source: Path, path: Path, precision: str) -> None:
    """Quantise an F32 file to `Q8_0` or `Q4_0`."""
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = _QUANTISED[precision], 2
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), settings):
        raise RuntimeError(f"llama.cpp could not quantise {source} to {precision}")


def main() -> None:
    source, made, precision = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if precision in _QUANTISED:
        quantise(source / "model.gguf", made / "model.gguf", precision)
    else:
        write_gguf(source, made / "model.gguf", precision)


if __name__ == "__main__":
    main()
