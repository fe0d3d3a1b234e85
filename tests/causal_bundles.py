"""Bundles of small decoders without an encoder, one of each kind."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.load import DECODER
from cellscribe.export import causal_bundle
from cellscribe.export.models.causal import CausalConfig, CausalDecoder, CausalGraph
from cellscribe.export.trace import trace_causal

CONFIGS = {
    "gpt2": CausalConfig(99, 64, 2, 4, 4, 16, 128, 160, activation="gelu_tanh", learned_positions=True),
    "neox": CausalConfig(99, 64, 2, 4, 4, 16, 128, 160, is_parallel=True, rotary_width=4),
    "gemma2": CausalConfig(
        99, 64, 3, 4, 2, 16, 96, 160, norm="rms", activation="gelu_tanh", is_gated=True, has_post_norms=True,
        has_biases=False, rotary_width=16, embedding_scale=8.0, query_scale=0.2, attention_cap=3.0, logits_cap=2.0,
        window=21, tie_embeddings=True,
    ),
}  # fmt: skip


def bundle_of(kind: str, precision: str, folder: Path) -> Bundle:
    """Trace one of random weights, without the tokenizer and reference that a build does not read."""
    torch.manual_seed(0)
    decoder = CausalDecoder(CONFIGS[kind]).eval()
    with torch.no_grad():
        for tensor in decoder.parameters():
            tensor.normal_(std=0.2)
        parts = causal_bundle.CausalParts("c2s", copy.deepcopy(decoder), "", (0,))
        dtype = torch.float16 if precision == "fp16" else torch.float32
        decoder = decoder.to(dtype)
        decoder.restore_tables()
        folder.mkdir(exist_ok=True)
        trace_causal(CausalGraph(decoder).to(dtype), folder / DECODER, dtype)
    manifest = causal_bundle._manifest(parts, precision, kind)
    return Bundle(folder, replace(manifest, files={path.name: record(path) for path in folder.iterdir()}), "")
