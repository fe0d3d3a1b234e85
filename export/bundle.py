"""Checkpoint -> bundle: trace, compute the prefix, keep a reference, check parity, then move into place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.bundle import load as names
from cellscribe.engine.bundle.figures import Parity
from cellscribe.engine.bundle.load import open_bundle
from cellscribe.engine.bundle.manifest import PRECISIONS, WEIGHT_ONLY, Manifest, Precision
from cellscribe.engine.errors import CheckpointError, UsageError
from cellscribe.engine.instruct.gene_lists import packaged_genes, read_genes
from cellscribe.engine.output.folder import check_target, staging
from cellscribe.engine.verify import measure_parity, require_parity
from cellscribe.engine.versions import versions
from cellscribe.export.causal_bundle import CausalParts, causal_parts, export_causal
from cellscribe.export.checkpoint.instructcell import read_instructcell
from cellscribe.export.checkpoint.langcell import RankParts, read_geneformer, read_langcell
from cellscribe.export.checkpoint.sentencepiece import read_t5_tokenizer
from cellscribe.export.describe_manifest import manifest_of
from cellscribe.export.fused import fuse_file
from cellscribe.export.graphs import CrossGraph, DecoderGraph, EncoderGraph
from cellscribe.export.instruct_bundle import InstructSource, export_instruct
from cellscribe.export.models.cross import latent_is_cheaper
from cellscribe.export.parts import Parts, read_parts
from cellscribe.export.prefix import compute_prefix
from cellscribe.export.quantize.exporting import export_quantized
from cellscribe.export.random_instruct import SIZES as INSTRUCT_SIZES
from cellscribe.export.random_instruct import random_genes, random_instruct, random_words
from cellscribe.export.random_model import SHAPES, random_parts
from cellscribe.export.random_ranks import SIZES as RANK_SIZES
from cellscribe.export.random_ranks import random_ranks
from cellscribe.export.rank_bundle import export_ranks
from cellscribe.export.reference import decoder_reference, encoder_reference
from cellscribe.export.reference_cells import ReferenceCells, reference_cells
from cellscribe.export.report import ExportReport
from cellscribe.export.sealing import seal
from cellscribe.export.trace import trace_cross, trace_decoder, trace_encoder

Progress = Callable[[str], None]

_REFERENCE_TOKENS = 32
OTHERS = ("c2s", "langcell", "geneformer", "instructcell")  # families that are read and written in modules of their own


@dataclass(frozen=True)
class _Rest:
    """What only some families take."""

    say: Progress
    tokenizer: Path | None
    layer: int
    genes: Path | None


def export_checkpoint(
    checkpoint: Path,
    bundle: Path,
    *,
    family: str,
    precision: str = "fp32",
    cross_attention: str = "auto",
    key_map: Path | None = None,
    parity_cells: Path | None = None,
    name: str | None = None,
    tokenizer: Path | None = None,
    layer: int = -1,
    genes: Path | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Export a checkpoint folder.

    Parameters
    ----------
    checkpoint
        A folder as :mod:`cellscribe.export.checkpoint` describes it.
    bundle
        Folder to make; it must not exist yet.
    family
        ``lingocell`` (encoder and decoder), ``scgpt`` (an encoder alone), ``c2s`` (a Hugging Face folder of GPT-2,
        GPT-NeoX or Gemma-2), ``langcell`` (encoders of cells and of texts), ``geneformer`` (an encoder of cells) or
        ``instructcell`` (a cell tower, a T5 and a decoder of expression profiles).
    precision
        ``fp32`` or ``fp16``: weights and activations; norms and the softmax of cross-attention are computed in
        float32, and logits are given as float32. ``int8``, ``int4`` and ``fp16-stored`` quantise the fp32 bundle; see
        :func:`cellscribe.export.quantize.bundle.quantize_bundle`.
    cross_attention
        ``latent``, ``materialised`` or ``auto``, by cost.
    key_map
        Prefixes of a single training file, see :mod:`cellscribe.export.checkpoint.lingocell`.
    parity_cells
        Cells to check parity on; None takes the packaged ones.
    tokenizer
        Folder of LangCell's text tokenizer, where the checkpoint does not hold it.
    layer
        Which states of a Geneformer are averaged: 0 for those of the last layer, -1 for the one before it.
    genes
        The genes of an InstructCell in its order (:func:`cellscribe.engine.instruct.gene_lists.read_genes`); None takes
        those of the published ones.

    Raises
    ------
    CheckpointError
        When the checkpoint cannot be read.
    BundleError
        When the graphs do not reproduce the torch model.
    OutputError
        When the bundle cannot be written.
    """
    check_target(bundle)
    say = progress or (lambda _: None)
    say("reading the checkpoint")
    if family in OTHERS:
        rest = _Rest(say, None if tokenizer is None else Path(tokenizer), layer, None if genes is None else Path(genes))
        return _export_other(Path(checkpoint), bundle, family, precision, parity_cells, name or bundle.name, rest)
    parts = read_parts(Path(checkpoint), family, key_map)
    return _export(parts, bundle, precision, cross_attention, parity_cells, name or bundle.name, say)


def export_random(
    shape: str,
    bundle: Path,
    *,
    precision: str = "fp32",
    cross_attention: str = "auto",
    seed: int = 0,
    parity_cells: Path | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Export a model of a known shape with random weights, for benchmarks; see :func:`export_checkpoint`."""
    check_target(bundle)
    say = progress or (lambda _: None)
    every = (*SHAPES, *RANK_SIZES, *INSTRUCT_SIZES)
    if shape not in every:
        raise UsageError(f"shape {shape!r} is not known; choose {', '.join(every)}.")
    say(f"drawing random weights of shape {shape}")
    if shape in INSTRUCT_SIZES:
        source = InstructSource(random_instruct(shape, seed), random_words(shape), random_genes())
        return _write_other(export_instruct, source, bundle, precision, parity_cells, bundle.name, say)
    if shape in RANK_SIZES:
        parts = random_ranks(shape, seed)
        return _write_other(export_ranks, parts, bundle, precision, parity_cells, bundle.name, say)
    return _export(random_parts(shape, seed), bundle, precision, cross_attention, parity_cells, bundle.name, say)


def _export(
    parts: Parts, bundle: Path, precision: str, cross: str, cells: Path | None, name: str, say: Progress
) -> ExportReport:
    if precision in WEIGHT_ONLY:
        write = partial(_export, parts, precision="fp32", cross=cross, cells=cells, name=name, say=say)
        return ExportReport(bundle, export_quantized(write, bundle, precision, cells, say))
    parts = replace(parts, form=_choose_form(parts, cross))
    manifest = manifest_of(parts, precision, name)
    with staging(bundle) as folder, torch.no_grad():
        for file, text in parts.texts().items():
            (folder / file).write_text(text, encoding="utf-8")
        _trace_all(parts, folder, torch.float16 if precision == "fp16" else torch.float32, say)
        chosen = reference_cells(parts, cells)
        _keep_reference(parts, chosen, folder, say)
        manifest = seal(manifest, folder, _tools())
        say("checking parity with torch")
        parity = _parity(parts, folder, chosen)
        manifest = seal(replace(manifest, parity=parity), folder, _tools())
    return ExportReport(bundle, manifest)


def _export_other(
    checkpoint: Path, bundle: Path, family: str, precision: str, cells: Path | None, name: str, rest: _Rest
) -> ExportReport:
    """Export a family that has no memory which a decoder reads."""
    if not checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint} is not a folder; point to a checkpoint folder.")
    if family == "c2s":
        return _write_other(export_causal, causal_parts(checkpoint), bundle, precision, cells, name, rest.say)
    if family == "instructcell":
        return _write_other(
            export_instruct, _instruct_source(checkpoint, rest.genes), bundle, precision, cells, name, rest.say
        )
    langcell = family == "langcell"
    parts = read_langcell(checkpoint, rest.tokenizer) if langcell else read_geneformer(checkpoint, rest.layer)
    return _write_other(export_ranks, parts, bundle, precision, cells, name, rest.say)


def _instruct_source(checkpoint: Path, genes: Path | None) -> InstructSource:
    listed = packaged_genes() if genes is None else read_genes(genes)
    return InstructSource(read_instructcell(checkpoint), read_t5_tokenizer(checkpoint), listed)


def _write_other(
    export: Callable[..., Manifest],
    parts: CausalParts | RankParts | InstructSource,
    bundle: Path,
    precision: str,
    cells: Path | None,
    name: str,
    say: Progress,
) -> ExportReport:
    """Write a bundle in any precision with what writes it in fp32 and fp16."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}; choose {', '.join(PRECISIONS)}.")
    stored: Precision = "fp16" if precision == "fp16" else "fp32"
    write = partial(export, parts, precision=stored, name=name, cells=cells, tools=_tools(), say=say)
    if precision in WEIGHT_ONLY:
        return ExportReport(bundle, export_quantized(write, bundle, precision, cells, say))
    return ExportReport(bundle, write(bundle))


def _choose_form(parts: Parts, cross: str) -> Literal["latent", "materialised"]:
    if cross == "latent":
        return "latent"
    if cross == "materialised":
        return "materialised"
    if cross != "auto":
        raise UsageError(f"cross-attention is {cross!r}; choose auto, latent or materialised.")
    block = parts.first_cross
    if block is None:
        return "latent"
    memory = parts.encoder.config.d_model
    return "latent" if latent_is_cheaper(block.n_heads, block.n_kv_heads, block.d_head, memory) else "materialised"


def _trace_all(parts: Parts, folder: Path, dtype: torch.dtype, say: Progress) -> None:
    """Trace every graph; in half precision from a rounded copy, so that the reference keeps the original weights."""
    half = dtype == torch.float16
    say("tracing the encoder")
    trace_encoder(EncoderGraph(copy.deepcopy(parts.encoder).half() if half else parts.encoder), folder / names.ENCODER)
    if parts.decoder is None:
        return
    decoder = copy.deepcopy(parts.decoder).half() if half else parts.decoder
    if half:
        decoder.restore_tables()
    say("tracing the decoder")
    trace_decoder(DecoderGraph(decoder, parts.form).to(dtype), folder / names.DECODER, dtype)
    if half and parts.form == "latent":
        fuse_file(folder / names.DECODER)
    if parts.needs_cross_graph:
        say("tracing the cross-attention projections")
        trace_cross(CrossGraph(decoder, parts.form), folder / names.CROSS, parts.encoder.config.d_model, dtype)
    say("computing the prompt's prefix")
    save_file(
        {k: v.to(dtype) for k, v in compute_prefix(parts.decoder, parts.prompt_ids).items()}, folder / names.PREFIX
    )


def _keep_reference(parts: Parts, cells: ReferenceCells, folder: Path, say: Progress) -> None:
    say("running the torch model on the reference cells")
    reference = encoder_reference(parts.encoder, cells.batch)
    if parts.decoder is not None:
        reference |= decoder_reference(parts.decoder, parts.prompt_ids, reference, _REFERENCE_TOKENS)
    save_file(reference, folder / names.REFERENCE)


def _parity(parts: Parts, folder: Path, cells: ReferenceCells) -> Parity:
    parts.release()  # the runtime needs the room
    opened = open_bundle(folder)
    parity = measure_parity(opened, OnnxRuntimeCpu(opened), cells.source)
    require_parity(parity, opened.name)
    return parity


def _tools() -> dict[str, str]:
    return {**versions(), **{name: version(name) for name in ("torch", "onnx", "onnxscript", "transformers")}}
