"""A decoder without an encoder -> bundle: trace, keep a reference, check parity, then move into place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.bundle import load as names
from cellscribe.engine.bundle.load import open_bundle
from cellscribe.engine.bundle.manifest import Manifest, Precision, SentenceInput
from cellscribe.engine.bundle.shapes import DecoderShape, DecoderStyle
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import CheckpointError
from cellscribe.engine.keyed import cell_keys, stream_keys
from cellscribe.engine.output.folder import staging
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.ranked import rank_genes, to_sentences
from cellscribe.engine.sentences.transform import TIES
from cellscribe.engine.verify_text import measure_text_parity, require_text_parity
from cellscribe.export.checkpoint.c2s import NUM_GENES, read_habits
from cellscribe.export.checkpoint.causal import read_causal
from cellscribe.export.models.causal import CausalDecoder, CausalGraph
from cellscribe.export.parts import read_tokenizer, special_ids
from cellscribe.export.sealing import seal
from cellscribe.export.trace import trace_causal

Progress = Callable[[str], None]

TASKS = ("annotate", "generate", "ask", "embed")
_PROMPTS, _LONGEST, _TOKENS = 4, 96, 8  # of the reference: prompts, tokens of a prompt, tokens after it


@dataclass(frozen=True)
class CausalParts:
    """What a bundle without an encoder is made of."""

    family: str
    decoder: CausalDecoder
    tokenizer_json: str
    eos_ids: tuple[int, ...]
    num_genes: int = NUM_GENES
    notes: str = ""


def causal_parts(checkpoint: Path) -> CausalParts:
    """Read a checkpoint folder of the family c2s; CheckpointError where it is none, or its parts do not fit."""
    tokenizer = read_tokenizer(checkpoint / "tokenizer.json")
    _, eos = special_ids(checkpoint, tokenizer)
    decoder = read_causal(checkpoint)
    if tokenizer.get_vocab_size() > decoder.config.vocab_size:
        raise CheckpointError(
            f"{checkpoint} has a tokenizer of {tokenizer.get_vocab_size()} tokens and a decoder of "
            f"{decoder.config.vocab_size}; take the tokenizer it was trained with."
        )
    num_genes, notes = read_habits(checkpoint)
    return CausalParts("c2s", decoder, tokenizer.to_str(), eos, num_genes, notes)


def export_causal(
    parts: CausalParts,
    bundle: Path,
    precision: Precision,
    name: str,
    cells: Path | None,
    tools: dict[str, str],
    say: Progress,
) -> Manifest:
    """Write a bundle in fp32 or fp16; see :func:`cellscribe.export.bundle.export_checkpoint`."""
    dtype = torch.float16 if precision == "fp16" else torch.float32
    with staging(bundle) as folder, torch.no_grad():
        (folder / names.TOKENIZER).write_text(parts.tokenizer_json, encoding="utf-8")
        say("tracing the decoder")
        decoder = copy.deepcopy(parts.decoder).half() if dtype == torch.float16 else parts.decoder
        decoder.restore_tables()
        trace_causal(CausalGraph(decoder).to(dtype), folder / names.DECODER, dtype)
        say("running the torch model on the reference prompts")
        prompts, source = reference_prompts(parts, cells)
        save_file(text_reference(parts.decoder, prompts), folder / names.REFERENCE)
        manifest = seal(_manifest(parts, precision, name), folder, tools)
        parts.decoder.to("meta")
        say("checking parity with torch")
        opened = open_bundle(folder)
        parity = measure_text_parity(opened, OnnxRuntimeText(opened), source)
        require_text_parity(parity, name)
        return seal(replace(manifest, text_parity=parity), folder, tools)


def reference_prompts(parts: CausalParts, cells: Path | None) -> tuple[list[list[int]], str]:
    """Return sentences of a few real cells as token ids, of different lengths, and where they come from."""
    path = cells or packaged_cells()
    with open_cells(path) as source:
        block = next(source.blocks(np.arange(min(_PROMPTS, source.n_cells))))
        genes = SentenceGenes.of_cells(source)
        keys = stream_keys(0, cell_keys(source.obs_names[block.rows]), TIES)
        texts = to_sentences(rank_genes(block.part, genes, keys, _LONGEST), genes)
    tokenizer = Tokenizer.from_str(parts.tokenizer_json)
    most = min(_LONGEST, parts.decoder.config.max_positions - _TOKENS)
    prompts = []
    for i, text in enumerate(texts):
        prompts.append(tokenizer.encode(text).ids[: max(2, most - 11 * i)])
    if min(map(len, prompts)) < 2:
        raise CheckpointError("the tokenizer makes nothing of gene names; take the one the decoder was trained with.")
    return prompts, f"sentences of {path.name}"


def text_reference(decoder: CausalDecoder, prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Return the torch model's answers.

    Returns
    -------
    ``prompt`` int64 [R, P], zero after ``length`` int64 [R]; greedy ``tokens`` int64 [R, T] with the ``logits``
    float32 [R, T, V] before each; ``embedding`` float32 [R, d], the mean of the prompt's last states.
    """
    longest = max(map(len, prompts))
    tokens, logits, embeddings = [], [], []
    for prompt in prompts:
        ids, seen = torch.tensor([list(prompt)]), []
        embeddings.append(decoder.forward_train(ids)[1][0].float().mean(0))
        for _ in range(_TOKENS):
            seen.append(decoder.forward_train(ids)[0][0, -1].clone())
            ids = torch.cat((ids, seen[-1].argmax().reshape(1, 1)), 1)
        tokens.append(ids[0, len(prompt) :])
        logits.append(torch.stack(seen))
    padded = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
    return {
        "prompt": torch.tensor(padded),
        "length": torch.tensor([len(prompt) for prompt in prompts]),
        "tokens": torch.stack(tokens),
        "logits": torch.stack(logits),
        "embedding": torch.stack(embeddings),
    }


def _manifest(parts: CausalParts, precision: Precision, name: str) -> Manifest:
    c = parts.decoder.config
    return Manifest(
        name,
        parts.family,
        TASKS,
        precision,
        None,
        None,
        decoder=DecoderShape(
            c.vocab_size, c.d_model, c.n_layers, 0, c.n_heads, c.n_kv_heads, c.d_head, c.d_ffn, c.max_positions
        ),
        notes=parts.notes,
        style=DecoderStyle(
            norm=c.norm,
            norm_eps=c.norm_eps,
            activation=c.activation,
            is_gated=c.is_gated,
            is_parallel=c.is_parallel,
            has_post_norms=c.has_post_norms,
            has_biases=c.has_biases,
            rotary_width=c.rotary_width,
            learned_positions=c.learned_positions,
            embedding_scale=c.embedding_scale,
            score_scale=c.scale,
            attention_cap=c.attention_cap,
            logits_cap=c.logits_cap,
            window=c.window,
            window_every=c.window_every,
        ),
        sentences=SentenceInput(parts.num_genes, parts.eos_ids),
    )
