"""The Gemma-2 of C2S-Scale, by their configurations alone: sizes, habits, and how many weights that makes."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch

from cellscribe.export import causal_bundle
from cellscribe.export.checkpoint.causal import gemma2_config
from cellscribe.export.models.causal import CausalDecoder

COMMON: dict[str, Any] = {
    "model_type": "gemma2", "vocab_size": 256000, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "tie_word_embeddings": True,
}  # fmt: skip
SIZES: dict[str, tuple[dict[str, Any], tuple[int, ...], int, float]] = {
    "2B": (
        {
            "hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
            "head_dim": 256, "intermediate_size": 9216, "query_pre_attn_scalar": 256,
        },
        (256000, 2304, 26, 0, 8, 4, 256, 9216, 8192),
        2_614_341_888,
        1 / 16,
    ),
    "27B": (
        {
            "hidden_size": 4608, "num_hidden_layers": 46, "num_attention_heads": 32, "num_key_value_heads": 16,
            "head_dim": 128, "intermediate_size": 36864, "query_pre_attn_scalar": 144,
        },
        (256000, 4608, 46, 0, 32, 16, 128, 36864, 8192),
        27_227_128_320,
        1 / 12,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SIZES))
def test_a_configuration_becomes_the_right_shape(tmp_path: Path, name: str) -> None:
    sizes, shape, num_weights, scale = SIZES[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(COMMON | sizes))
    with torch.device("meta"):  # no weights
        decoder = CausalDecoder(gemma2_config(json.loads(path.read_text()), path))
    assert sum(one.numel() for one in decoder.parameters()) == num_weights
    manifest = causal_bundle._manifest(causal_bundle.CausalParts("c2s", decoder, "", (1,)), "fp16", name)
    assert manifest.decoder is not None
    assert astuple(manifest.decoder) == shape
    style = manifest.style
    assert style is not None
    assert style.score_scale == pytest.approx(scale)
    assert style.embedding_scale == pytest.approx(sizes["hidden_size"] ** 0.5)
    assert (style.attention_cap, style.logits_cap, style.window) == (50.0, 30.0, 4096)
    assert (style.norm, style.activation, style.rotary_width) == ("rms", "gelu_tanh", sizes["head_dim"])
    assert style.is_gated
    assert style.has_post_norms
    assert not style.has_biases
    assert [style.is_windowed(layer) for layer in range(4)] == [True, False, True, False]
