"""How fast is Cell2Sentence beside other engines? ``python benchmarks/c2s.py [--again] [--bits 8 32 4] [--cells 64]``.

Pythia-410m's shape with random weights, the same for all, greedy, texts without an end, from token ids to token ids:

- types: the cell type of real cells, sentences of 200 genes (some 700 tokens), 16 new tokens each, beside the upstream
  way, `generate` of transformers one prompt at a time in float32;
- cells: cells written by type. A cell of 200 genes takes some 700 tokens; the first 256 are timed, as the steps after
  them differ only by what they read of longer caches.

Engines of one bit width are asked in turn, with the batches they are named by, prompts of like lengths together, after
a request of two cells whose tokens are compared with those of transformers. Ours computes what all prompts begin with
once, some 16 tokens of a prompt of cell types; the others cannot. A run that is cut off goes on where it stopped;
``--shape tiny-neox`` only shows that everything runs and keeps no results.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from peers import compared
from peers.c2s_prompts import cell_prompts, type_prompts
from peers.compared import Comparison, kept
from peers.floors import plain
from peers.registry import Peer, c2s_peers
from peers.shapes import SHAPES
from peers.tiny_neox import SHAPES as NEOX_SHAPES

SHAPE = "pythia-410m"
BATCH, MANY = 8, 32
UPSTREAM, BATCHED = "transformers generate, batch 1", f"transformers generate, batch {BATCH}"
WARM_UP_CELLS = 2
LABEL_TOKENS, CELL_TOKENS = 16, 256
# Engines that fit into memory together.
TYPES = {
    8: (("CTranslate2 int8", "llama.cpp Q8_0", "onnxruntime-genai int8"),),
    32: (
        ("CTranslate2", "llama.cpp F32", "onnxruntime-genai"),
        ("transformers generate", "transformers oneDNN", "optimum-onnx"),
    ),
    4: (("llama.cpp Q4_0", "onnxruntime-genai int4"),),
    16: (("transformers bf16", "llama.cpp F16"),),
}
CELLS = {
    8: (("CTranslate2 int8", "llama.cpp Q8_0"),),
    32: (("CTranslate2", "llama.cpp F32"), ("transformers oneDNN", "optimum-onnx")),
    4: (("llama.cpp Q4_0",),),
    16: (("transformers bf16", "llama.cpp F16"),),
}
PARTS = {
    "whole": lambda one: [one["seconds"]],
    "prompt": lambda one: [one["prefill_seconds"]],
    "step": lambda one: one["step_seconds"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 32, 4], choices=list(TYPES))
    parser.add_argument("--only", choices=["types", "cells"], help="one of the questions")
    parser.add_argument("--cells", type=int, default=64, help="whose types are asked for; half as many are written")
    parser.add_argument("--new-tokens", type=int, default=CELL_TOKENS, help="of cells that are written")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", default=SHAPE, choices=list(NEOX_SHAPES))
    asked = parser.parse_args()
    questions = {"types": types(asked), "cells": cells(asked)}
    todo = [one for name, found in questions.items() if asked.only in (None, name) for one in found]
    with tempfile.TemporaryDirectory() as scratch:
        if asked.shape != SHAPE:
            compared.RESULTS = Path(scratch)
        kept("c2s", todo, PARTS, plain(SHAPES[asked.shape]), again=asked.again)


def types(asked: argparse.Namespace) -> Iterator[Comparison]:
    """Cell types: ours, the upstream way, and the engines of one bit width."""
    prompts = type_prompts(asked.cells)
    for bits in asked.bits:
        for i, names in enumerate(TYPES[bits]):
            wanted = (UPSTREAM, BATCHED) if "transformers generate" in names else (UPSTREAM,)
            found = chosen(bits, names, (BATCH,))
            reference = engines(wanted[-1:] if len(TYPES[bits]) > 1 and i else (UPSTREAM,))
            yield comparison(
                asked, f"types, {named(bits, i)}", (*reference, *(one for one in found if one not in reference)),
                prompts, LABEL_TOKENS,
            )  # fmt: skip


def cells(asked: argparse.Namespace) -> Iterator[Comparison]:
    """Cells that are written: ours with few and many slots, transformers at batch 8, and the engines of one width."""
    prompts = cell_prompts(max(1, asked.cells // 2))
    for bits in asked.bits:
        for i, names in enumerate(CELLS[bits]):
            found = chosen(bits, names, (BATCH, MANY))
            yield comparison(
                asked, f"cells, {named(bits, i)}", (*engines((BATCHED,)), *found), prompts, asked.new_tokens
            )


def named(bits: int, team: int) -> str:
    return f"{bits} bits" + (f", team {team + 1}" if len(TYPES[bits]) > 1 else "")


def engines(names: tuple[str, ...]) -> tuple[Peer, ...]:
    """Return engines by the names that they have with their batches."""
    every = {one.name: one for batch in (1, BATCH, MANY) for one in c2s_peers(batch)}
    return tuple(every[name] for name in names)


def chosen(bits: int, names: tuple[str, ...], batches: tuple[int, ...]) -> tuple[Peer, ...]:
    """Return ours of a width and the named ones, with every batch."""
    return tuple(
        one
        for batch in batches
        for one in c2s_peers(batch)
        if one.bits == bits
        and (one.name.startswith("cellscribe") or one.name.removesuffix(f", batch {batch}") in names)
    )


def comparison(
    asked: argparse.Namespace, key: str, peers: tuple[Peer, ...], prompts: list[list[int]], new_tokens: int
) -> Comparison:
    return Comparison(
        key,
        peers,
        {"do": "complete", "prompts": prompts, "new_tokens": new_tokens},
        units=len(prompts),
        rounds=asked.rounds,
        reference=peers[0].name,
        asks_margins=True,
        shape=asked.shape,
        sizes={
            "cells": len(prompts),
            "prompt_len": round(float(np.mean([len(one) for one in prompts]))),
            "new_tokens": new_tokens,
        },
        first={"prompts": prompts[:WARM_UP_CELLS], "new_tokens": min(new_tokens, LABEL_TOKENS)},
        may_lack=frozenset(one.name for one in peers if one.environment == "onnxruntime_genai"),
    )


if __name__ == "__main__":
    main()
