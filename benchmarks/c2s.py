"""How fast is Cell2Sentence beside other engines? ``python benchmarks/c2s.py [--again] [--bits 8 32 4] [--cells 64]``.

Pythia-410m's shape with random weights, the same for all, greedy, texts without an end, from token ids to token ids:

- types: the cell type of real cells, sentences of 200 genes (some 700 tokens), 16 new tokens each, beside the upstream
  way, `generate` of transformers one prompt at a time in float32;
- cells: cells written by type. A cell of 200 genes takes some 700 tokens; the first 256 are timed, as the steps after
  them differ only by what they read of longer caches.

Engines of one bit width are asked in turn, with the batches they are named by, prompts of like lengths together, after
a request of two cells whose tokens are compared with those of transformers. Ours computes what all prompts begin with
once, 15 of a prompt of cell types; the others cannot. A run that is cut off goes on where it stopped;
``--shape tiny-neox`` only shows that everything runs and keeps no results.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass

import numpy as np
from peers.c2s_prompts import cell_prompts, type_prompts
from peers.compared import Comparison, kept
from peers.floors import plain
from peers.registry import Peer, c2s_peers
from peers.shapes import SHAPES
from peers.tiny_neox import SHAPES as NEOX_SHAPES
from results_folder import VARIABLE

SHAPE = "pythia-410m"
BATCH, MANY = 8, 32
UPSTREAM, BATCHED = "transformers generate, batch 1", f"transformers generate, batch {BATCH}"
WARM_UP_CELLS = 2
LABEL_TOKENS, CELL_TOKENS = 16, 256


@dataclass(frozen=True)
class Team:
    """Engines that fit into memory together: the reference in float32, ours of a width, and others with a batch."""

    bits: int
    reference: str
    others: tuple[str, ...]
    batch: int = BATCH

    def peers(self) -> tuple[Peer, ...]:
        """Return all of them, the reference first."""
        every = {one.name: one for batch in (1, self.batch, BATCH) for one in c2s_peers(batch)}
        ours = [one for one in c2s_peers(self.batch) if one.name.startswith("cellscribe") and one.bits == self.bits]
        others = [every[f"{name}, batch {self.batch}"] for name in self.others]
        return (every[self.reference], *ours, *others)


# The most telling first, as a run may be cut off.
TYPES = (
    Team(8, UPSTREAM, ("CTranslate2 int8", "CTranslate2 int8, 2 workers", "llama.cpp Q8_0", "onnxruntime-genai int8")),
    Team(32, UPSTREAM, ("CTranslate2", "llama.cpp F32", "onnxruntime-genai")),
    Team(4, UPSTREAM, ("llama.cpp Q4_0", "onnxruntime-genai int4")),
    Team(32, BATCHED, ("transformers oneDNN", "optimum-onnx")),
    Team(16, BATCHED, ("transformers bf16", "llama.cpp F16")),
)
CELLS = (
    Team(8, BATCHED, ("CTranslate2 int8", "CTranslate2 int8, 2 workers", "llama.cpp Q8_0")),
    Team(32, BATCHED, ("CTranslate2", "llama.cpp F32", "transformers oneDNN")),
    Team(4, BATCHED, ("llama.cpp Q4_0",)),
    Team(8, BATCHED, ("CTranslate2 int8", "CTranslate2 int8, 2 workers", "llama.cpp Q8_0"), MANY),
    Team(32, BATCHED, ("CTranslate2", "llama.cpp F32"), MANY),
    Team(4, BATCHED, ("llama.cpp Q4_0",), MANY),
    Team(16, BATCHED, ("transformers bf16", "llama.cpp F16")),
)
PARTS = {
    "whole": lambda one: [one["seconds"]],
    "prompt": lambda one: [one["prefill_seconds"]],
    "step": lambda one: one["step_seconds"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 32, 4], choices=[4, 8, 16, 32])
    parser.add_argument("--only", choices=["types", "cells"], help="one of the questions")
    parser.add_argument("--cells", type=int, default=64, help="whose types are asked for; half as many are written")
    parser.add_argument("--new-tokens", type=int, default=CELL_TOKENS, help="of cells that are written")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", default=SHAPE, choices=list(NEOX_SHAPES))
    asked = parser.parse_args()
    todo = [one for name in ("types", "cells") if asked.only in (None, name) for one in comparisons(asked, name)]
    with tempfile.TemporaryDirectory() as scratch:
        if asked.shape != SHAPE:
            os.environ[VARIABLE] = scratch
        kept("c2s", todo, PARTS, plain(SHAPES[asked.shape]), again=asked.again)


def comparisons(asked: argparse.Namespace, question: str) -> list[Comparison]:
    """Return what is asked of every team of the widths asked for."""
    if question == "types":
        prompts, new_tokens, teams = type_prompts(asked.cells), LABEL_TOKENS, TYPES
    else:
        prompts, new_tokens, teams = cell_prompts(max(1, asked.cells // 2)), asked.new_tokens, CELLS
    return [
        comparison(asked.shape, asked.rounds, f"{question}, {key(team)}", team.peers(), prompts, new_tokens)
        for team in teams
        if team.bits in asked.bits
    ]


def key(team: Team) -> str:
    """Name a team by what tells it from the others."""
    return f"{team.bits} bits, beside {team.reference}" + (f", {team.batch} at a time" if team.batch != BATCH else "")


def comparison(
    shape: str, rounds: int, name: str, peers: tuple[Peer, ...], prompts: list[list[int]], new_tokens: int
) -> Comparison:
    return Comparison(
        name,
        peers,
        {"do": "complete", "prompts": prompts, "new_tokens": new_tokens},
        units=len(prompts),
        rounds=rounds,
        reference=peers[0].name,
        asks_margins=True,
        shape=shape,
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
