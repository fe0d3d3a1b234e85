"""An InstructCell -> bundle: trace, keep a reference, check parity, then move into place."""

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

from cellscribe.engine.backends.instruct import EncoderPrompt, ExpressedCell
from cellscribe.engine.backends.onnxruntime_instruct import OnnxRuntimeInstruct
from cellscribe.engine.bundle import load as names
from cellscribe.engine.bundle.load import open_bundle
from cellscribe.engine.bundle.manifest import Manifest, Precision
from cellscribe.engine.bundle.shapes import ProfileShape, T5Shape, TowerShape
from cellscribe.engine.cells import GeneVocabulary, open_cells
from cellscribe.engine.cells.vocabulary import CLS, PAD
from cellscribe.engine.errors import CheckpointError, InputError
from cellscribe.engine.instruct.cells import InstructCells
from cellscribe.engine.instruct.prompts import PromptEncoder, framed
from cellscribe.engine.instruct.spec import InstructInput
from cellscribe.engine.output.folder import staging
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.verify_instruct import measure_instruct_parity, require_instruct_parity
from cellscribe.export.checkpoint.instructcell import InstructParts
from cellscribe.export.models.instructcell import TowerGraph
from cellscribe.export.models.t5 import T5, T5CrossGraph, T5DecoderGraph, T5EncoderGraph
from cellscribe.export.sealing import seal
from cellscribe.export.sharing import share_weights
from cellscribe.export.trace_instruct import (
    trace_profile,
    trace_t5_cross,
    trace_t5_decoder,
    trace_t5_encoder,
    trace_tower,
)

Progress = Callable[[str], None]

TASKS = ("annotate", "ask", "generate")
_CELLS, _TOKENS = 3, 8  # of the reference
_START, _END = 0, 1  # what T5's texts begin and end with
# Prompts of the reference, of different lengths, about a cell and about none.
_ABOUT = (
    "What is the type of this cell: {cell}?",
    "{cell} is a cell from blood. Name its type, and say why.",
    "{cell}",
)
_WITHOUT = ("Generate the gene expression of one B cell.",)


@dataclass(frozen=True)
class InstructSource:
    """What a bundle is made of: modules, tokenizer, and the genes in the order of the tower's inputs."""

    parts: InstructParts
    tokenizer: Tokenizer
    genes: tuple[str, ...]

    def __post_init__(self) -> None:
        wanted = self.parts.tower.config.n_genes
        if len(self.genes) != wanted:
            raise CheckpointError(
                f"the list of genes has {len(self.genes):,} and the checkpoint reads {wanted:,}; give the list that "
                "belongs to it with --genes (genes)."
            )

    @property
    def spec(self) -> InstructInput:
        """What the manifest says of prompts and texts."""
        t = self.parts.tokens
        return InstructInput(t.start, t.placeholder, t.end, t.signal, _START, (_END, t.signal))


def export_instruct(
    source: InstructSource,
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
        GeneVocabulary((PAD, CLS, *source.genes), input_genes=source.genes).save(folder / names.GENES)
        (folder / names.TOKENIZER).write_text(source.tokenizer.to_str(), encoding="utf-8")
        _trace_all(source, folder, dtype, say)
        say("running the torch model on the reference cells")
        chosen, said = reference_cells(source, cells)
        save_file(instruct_reference(source, chosen), folder / names.REFERENCE)
        manifest = seal(_manifest(source, precision, name), folder, tools)
        say("checking parity with torch")
        opened = open_bundle(folder)
        parity = measure_instruct_parity(opened, OnnxRuntimeInstruct(opened), said)
        require_instruct_parity(parity, name)
        return seal(replace(manifest, instruct_parity=parity), folder, tools)


def reference_cells(source: InstructSource, cells: Path | None) -> tuple[tuple[ExpressedCell, ...], str]:
    """Return a few real cells and where they come from; drawn ones where the model knows none of the packaged genes.

    Raises
    ------
    InputError
        When `cells` was given and cannot be used.
    """
    path = cells or packaged_cells()
    try:
        with open_cells(path) as opened:
            batch = next(InstructCells(opened, source.genes).batches(np.arange(min(64, opened.n_cells))))
        if batch.cells:
            return batch.cells[:_CELLS], f"real cells of {path.name}"
        why = f"none of the first cells of {path} expresses a gene of the model; give other cells to check parity on."
    except InputError as error:
        why = str(error)
    if cells is not None:
        raise InputError(why)
    steps = [max(1, len(source.genes) // (40 - 9 * i)) for i in range(_CELLS)]
    drawn = [np.arange(0, len(source.genes), step, dtype=np.int64) for step in steps]
    said = "drawn cells, as the model knows none of the packaged cells' genes"
    return tuple(ExpressedCell(one, np.log1p(1.0 + one % 7).astype(np.float32)) for one in drawn), said


def instruct_reference(source: InstructSource, cells: Sequence[ExpressedCell]) -> dict[str, Tensor]:
    """Return the torch model's answers, one cell and one prompt at a time.

    Returns
    -------
    ``genes`` int64 and ``values`` float32 [C, N], zero after ``num_genes`` int64 [C]; ``features`` float32 [C, Q, d];
    ``prompt`` int64 [R, S], zero after ``prompt_length``, with the cell ``prompt_cell`` (-1: none) from
    ``prompt_start`` on, int64 [R]; ``states`` float32 [R, S, d]; greedy ``tokens`` int64 [R, T] with the ``logits``
    float32 [R, T, V] before each; and with a decoder of profiles ``condition`` [R, d], ``latent`` [R, z], ``library``
    [R, 1], ``rates`` and ``dropout`` [R, G].
    """
    parts, t5 = source.parts, source.parts.t5
    graph = TowerGraph(parts.tower)
    features = [graph(*(torch.from_numpy(one.copy())[None] for one in (c.genes, c.values))) for c in cells]
    encoder = PromptEncoder(source.tokenizer, source.spec, parts.tower.config.n_queries)
    asked = [(text, i % len(cells)) for i, text in enumerate(_ABOUT)] + [(text, -1) for text in _WITHOUT]
    prompts = [encoder.encode(framed(text, encoder.cell), has_cell=cell >= 0) for text, cell in asked]
    states = [
        _states(t5, one, features[cell] if cell >= 0 else None) for one, (_, cell) in zip(prompts, asked, strict=True)
    ]
    tokens, logits, last = zip(*(_greedy(t5, one) for one in states), strict=True)
    longest = max(one.shape[1] for one in states)
    found = {
        "genes": _padded([torch.from_numpy(c.genes.copy()) for c in cells]),
        "values": _padded([torch.from_numpy(c.values.copy()) for c in cells]),
        "num_genes": torch.tensor([len(c.genes) for c in cells]),
        "features": torch.cat(features),
        "prompt": _padded([torch.from_numpy(one.tokens.copy()) for one in prompts]),
        "prompt_length": torch.tensor([len(one.tokens) for one in prompts]),
        "prompt_start": torch.tensor([one.start for one in prompts]),
        "prompt_cell": torch.tensor([cell for _, cell in asked]),
        "states": torch.cat([torch.nn.functional.pad(one, (0, 0, 0, longest - one.shape[1])) for one in states]),
        "tokens": torch.stack(tokens),
        "logits": torch.stack(logits),
    }
    return found if parts.decoder is None else {**found, **_profiles(parts, torch.stack(last))}


def _states(t5: T5, prompt: EncoderPrompt, features: Tensor | None) -> Tensor:
    """Encode one prompt -> [1, S, d]."""
    x = t5.embedding(torch.from_numpy(prompt.tokens.copy())[None])
    if features is not None:
        x[:, prompt.start : prompt.start + features.shape[1]] = features
    return t5.encode(x, torch.ones(x.shape[:2], dtype=torch.bool))


def _greedy(t5: T5, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Write a few tokens after the start -> tokens [T], the logits before each [T, V], the last state [d]."""
    graph, ids = T5DecoderGraph(t5), torch.full((1, 1), _START)
    attended = list(T5CrossGraph(t5)(memory))
    c, seen = t5.config, []
    mask = torch.ones(1, memory.shape[1], dtype=torch.bool)
    for _ in range(_TOKENS):
        length = ids.shape[1]
        positions = torch.arange(length)[None]
        caches = [torch.zeros(1, c.n_heads, length, c.d_head) for _ in range(2 * c.n_decoder_layers)]
        causal = positions[:, None, :] <= positions[:, :, None]
        logits, states, *_ = graph(ids, positions, causal, mask, attended, caches)
        seen.append(logits[0, -1].clone())
        ids = torch.cat((ids, seen[-1].argmax().reshape(1, 1)), 1)
    return ids[0, 1:], torch.stack(seen), states[0, -1].clone()


def _profiles(parts: InstructParts, condition: Tensor) -> dict[str, Tensor]:
    assert parts.decoder is not None
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(len(condition), parts.n_latent, generator=generator)
    library = parts.library[0] + parts.library[1] ** 0.5 * torch.randn(len(condition), 1, generator=generator)
    rates, dropout, _ = parts.decoder(condition, latent, library)
    return {"condition": condition, "latent": latent, "library": library, "rates": rates, "dropout": dropout}


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _trace_all(source: InstructSource, folder: Path, dtype: torch.dtype, say: Progress) -> None:
    """Trace every graph; in half precision from rounded copies, so that the reference keeps the original weights."""
    parts = source.parts
    half = dtype == torch.float16
    t5 = copy.deepcopy(parts.t5).halve() if half else parts.t5
    tower = copy.deepcopy(parts.tower).half() if half else parts.tower
    say("tracing the cell tower")
    trace_tower(TowerGraph(tower), folder / names.TOWER)
    say("tracing the encoder")
    trace_t5_encoder(T5EncoderGraph(t5), folder / names.ENCODER, parts.tower.config.n_queries, dtype)
    trace_t5_cross(T5CrossGraph(t5), folder / names.CROSS, t5.config.d_model, dtype)
    say("tracing the decoder")
    trace_t5_decoder(T5DecoderGraph(t5), folder / names.DECODER, dtype)
    share_weights(folder, names.ENCODER, names.DECODER)
    if parts.decoder is None:
        return
    say("tracing the decoder of profiles")
    decoder = copy.deepcopy(parts.decoder).half() if half else parts.decoder
    trace_profile(decoder, folder / names.PROFILE, t5.config.d_model, parts.n_latent, dtype)
    save_file({"theta": parts.decoder.log_theta.exp().contiguous()}, folder / names.DISPERSION)


def _manifest(source: InstructSource, precision: Precision, name: str) -> Manifest:
    parts, c = source.parts, source.parts.t5.config
    profile = None
    if parts.decoder is not None:
        mean, variance = parts.library
        profile = ProfileShape(len(source.genes), parts.n_latent, mean, variance**0.5)
    return Manifest(
        name,
        "instructcell",
        TASKS if profile else TASKS[:2],
        precision,
        None,
        None,
        notes=parts.notes,
        instruct=source.spec,
        t5=T5Shape(
            vocab_size=c.vocab_size,
            d_model=c.d_model,
            n_encoder_layers=c.n_layers,
            n_layers=c.n_decoder_layers,
            n_heads=c.n_heads,
            d_head=c.d_head,
            d_ffn=c.d_ffn,
            reach=c.max_distance,
            activation="relu" if c.feed_forward == "relu" else "gelu_tanh",
            is_gated=c.feed_forward != "relu",
            norm_eps=c.norm_eps,
            head_scale=c.d_model**-0.5 if c.tie_embeddings else 1.0,
        ),
        tower=TowerShape(len(source.genes), parts.tower.config.n_queries),
        profile=profile,
    )


__all__ = ["InstructSource", "export_instruct", "instruct_reference", "reference_cells"]
