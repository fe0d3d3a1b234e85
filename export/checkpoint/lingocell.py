"""The LingoCell checkpoint folder, and a single training file read through a key map.

::

    encoder/                     a scGPT folder: args.json, vocab.json, best_model.pt
    decoder/                     a Hugging Face Llama folder: config.json, model.safetensors, tokenizer.json
    cross_attention.safetensors  layers.<decoder layer>.{q_proj,k_proj,v_proj,o_proj}.{weight,bias},
                                 .norm.weight, .memory_norm.{weight,bias}, .gate; linear weights are [d_out, d_in]
    lingocell.json               {"version": 1, "cross_attention": {...CrossConfig}, "cells": {...CellInput},
                                  "input_genes": [...] or null, "prompt": {"system": ..., "user": ...} or {"text": ...}}

A training checkpoint in one `.pt` file has the same folder around it, less the weight files, and a key map::

    {"weights": "last.pt", "state_dict": "model",
     "encoder": "encoder.", "decoder": "llm.", "cross_attention": "llm.model.layers.{layer}.cross_attn."}
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint import weights as w
from cellscribe.export.checkpoint.llama import llama_state, read_llama_config
from cellscribe.export.checkpoint.scgpt import ScgptCheckpoint, read_scgpt
from cellscribe.export.models.lingocell import CrossConfig, LingoDecoder
from cellscribe.export.prompt import Prompt

_PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "o_proj"}


@dataclass(frozen=True)
class LingoCellCheckpoint:
    """Everything a LingoCell bundle is made of."""

    scgpt: ScgptCheckpoint
    decoder: LingoDecoder
    cells: CellInput
    input_genes: tuple[str, ...] | None
    prompt: Prompt
    tokenizer_file: Path


def read_lingocell(folder: Path, key_map: Path | None = None) -> LingoCellCheckpoint:
    """Read a LingoCell checkpoint folder, or a training checkpoint described by `key_map`.

    Raises
    ------
    CheckpointError
        When a file is missing or damaged, or a tensor is missing, misshaped or unknown.
    """
    about = w.read_json(folder / "lingocell.json")
    if about.get("version") != 1:
        raise CheckpointError(
            f"{folder}/lingocell.json has version {about.get('version')!r}; this release reads version 1."
        )
    parts = _split_by_map(folder, key_map) if key_map else _folder_parts(folder)
    scgpt = read_scgpt(folder / "encoder", parts[0])
    cross = _from_fields(CrossConfig, about.get("cross_attention", {}), folder, "cross_attention")
    if cross.d_memory != scgpt.encoder.config.d_model:
        raise CheckpointError(
            f"{folder}/lingocell.json says memory width {cross.d_memory}, the encoder gives "
            f"{scgpt.encoder.config.d_model}; correct cross_attention.d_memory."
        )
    config = read_llama_config(folder / "decoder")
    if not 0 < cross.n_layers <= config.n_layers:
        raise CheckpointError(
            f"{folder}/lingocell.json asks for {cross.n_layers} cross-attention layers of {config.n_layers}."
        )
    with torch.device("meta"):
        decoder = LingoDecoder(config, cross)
    state = llama_state(parts[1], config, str(folder / "decoder"))
    state |= cross_state(parts[2], decoder, str(folder / "cross_attention.safetensors"))
    w.load_strict(decoder, state, str(folder))
    decoder.restore_tables()
    genes = about.get("input_genes")
    return LingoCellCheckpoint(
        scgpt,
        decoder.eval(),
        _from_fields(CellInput, {**asdict(scgpt.cells), **about.get("cells", {})}, folder, "cells"),
        tuple(genes) if genes else None,
        Prompt.from_dict(about.get("prompt", {}), folder / "lingocell.json"),
        folder / "decoder" / "tokenizer.json",
    )


def _folder_parts(folder: Path) -> tuple[None, w.Weights, w.Weights]:
    return None, w.read_folder_weights(folder / "decoder"), w.read_safetensors(folder / "cross_attention.safetensors")


def _split_by_map(folder: Path, key_map: Path) -> tuple[w.Weights, w.Weights, w.Weights]:
    """Divide one state dict into encoder, decoder and cross-attention by the prefixes of the key map."""
    about = w.read_json(key_map)
    lacking = [name for name in ("weights", "encoder", "decoder", "cross_attention") if name not in about]
    if lacking or "{layer}" not in about.get("cross_attention", ""):
        raise CheckpointError(
            f"{key_map} must give weights, encoder, decoder and cross_attention, the last with {{layer}} in it."
        )
    path = folder / about["weights"]
    stored: Any = w.read_safetensors(path) if path.suffix == ".safetensors" else w.read_pickled_tensors(path)
    for part in filter(None, str(about.get("state_dict") or "").split(".")):
        if part not in stored:
            raise CheckpointError(f'{path} has no entry {part}; correct "state_dict" in {key_map}.')
        stored = stored[part]
    everything = w.as_weights(stored, path)
    head, _, tail = about["cross_attention"].partition("{layer}")
    if not tail:
        raise CheckpointError(f'{key_map}: "cross_attention" must go on after {{layer}}, as in layers.{{layer}}.cross.')
    dropped = tuple(about.get("dropped", []))
    everything = {name: value for name, value in everything.items() if not name.startswith(dropped)}
    cross: w.Weights = {}
    for name in list(everything):
        layer, found, rest = name.removeprefix(head).partition(tail)
        if name.startswith(head) and found and layer.isdigit():
            cross[f"layers.{layer}.{rest}"] = everything.pop(name)
    parts: dict[str, w.Weights] = {about["encoder"]: {}, about["decoder"]: {}}
    left = []
    for name, value in everything.items():
        fitting = [prefix for prefix in parts if name.startswith(prefix)]
        if fitting:
            prefix = max(fitting, key=len)  # the decoder's may lie around the encoder's
            parts[prefix][name[len(prefix) :]] = value
        else:
            left.append(name)
    encoder, decoder = parts[about["encoder"]], parts[about["decoder"]]
    if left:
        raise CheckpointError(
            f"{path} holds {left[0]} under none of the prefixes of {key_map}; name it, or add it to dropped."
        )
    return encoder, decoder, cross


def cross_state(weights: w.Weights, decoder: LingoDecoder, where: str) -> w.Weights:
    """Translate cross-attention tensors into the decoder's names."""
    taker, state = w.Taker(weights, where), {}
    for i, layer in enumerate(decoder.blocks):
        if layer.cross is None:
            continue
        for name in layer.cross.state_dict():
            part, _, kind = name.partition(".")
            theirs = f"layers.{i}.{_PROJECTIONS.get(part, part)}" + (f".{kind}" if kind else "")
            is_matrix = part in _PROJECTIONS and kind == "weight"
            state[f"layers.{i}.cross.{name}"] = taker.take_linear(theirs) if is_matrix else taker.take(theirs)
    taker.finish(())
    return state


def save_cross_attention(decoder: LingoDecoder, path: Path) -> None:
    """Write cross_attention.safetensors of a decoder (the inverse of :func:`cross_state`)."""
    tensors: w.Weights = {}
    for i, layer in enumerate(decoder.blocks):
        if layer.cross is None:
            continue
        for name, value in layer.cross.state_dict().items():
            part, _, kind = name.partition(".")
            theirs = f"layers.{i}.{_PROJECTIONS.get(part, part)}" + (f".{kind}" if kind else "")
            tensors[theirs] = (value.t() if part in _PROJECTIONS and kind == "weight" else value).contiguous()
    save_file(tensors, path)


def _from_fields(kind: type[Any], values: dict[str, Any], folder: Path, section: str) -> Any:
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise CheckpointError(
            f"{folder}/lingocell.json: {section} does not know {unknown[0]}; known are {', '.join(sorted(known))}."
        )
    return kind(**values)


def write_about(folder: Path, cross: CrossConfig, cells: CellInput, genes: list[str] | None, prompt: Prompt) -> None:
    """Write lingocell.json."""
    about = {
        "version": 1,
        "cross_attention": asdict(cross),
        "cells": asdict(cells),
        "input_genes": genes,
        "prompt": prompt.as_dict(),
    }
    (folder / "lingocell.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
