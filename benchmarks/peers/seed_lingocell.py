"""The seed way: LingoCell in torch with a cached greedy loop, a batch of cells at a time.

The encoder, then the whole prompt for every cell, then a token a step for all cells. Weights are those of
``cellscribe export --random``'s shapes, so that tokens can be compared with a bundle's.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import torch
from peers.packed import pack
from peers.protocol import Answer, Engine, StepClock, serve, versions
from peers.seed_decoder import SeedDecoder
from peers.seed_parts import WEIGHTS_SEED, TokenisedCells, tokenised_cells
from peers.seed_scgpt import UpstreamScgpt, encode
from torch import Tensor

from cellscribe.export.random_model import random_parts


class SeedLingoCell(Engine):
    """Describes packaged cells."""

    def do_open(
        self, shape: str = "lingocell-1.1b", threads: int = 2, compiled: str = "", packed: bool = False
    ) -> Answer:
        """Draw the weights; `compiled` is torch.compile's mode, `packed` gives eager Linears oneDNN's layout."""
        torch.set_num_threads(threads)
        self._parts = random_parts(shape, WEIGHTS_SEED)
        if self._parts.decoder is None:
            raise ValueError(f"the shape {shape} has no decoder")
        self._encoder = UpstreamScgpt(self._parts.encoder)
        self._decoder = SeedDecoder(self._parts.decoder)
        self._parts.decoder = None
        gc.collect()
        if packed:
            pack(self._decoder)
        self._step: Any = torch.compile(self._decoder, mode=compiled, dynamic=False) if compiled else self._decoder
        self._is_static = bool(compiled)
        how = f"step in torch.compile {compiled}" if compiled else "eager"
        return {
            "versions": versions("torch"),
            "precision": "fp32",
            "threads": torch.get_num_threads(),
            "notes": f"{how}, {'Linears packed for oneDNN' if packed else 'ordinary Linears'}",
        }

    @torch.inference_mode()
    def do_describe(self, cells: int, new_tokens: int, batch: int = 8) -> Answer:
        """Describe the first packaged cells together; the encoder takes `batch` at a time."""
        tokenised = tokenised_cells(self._parts, cells)
        started = time.perf_counter()
        memory, _ = encode(self._encoder, tokenised, batch)
        encoded = time.perf_counter() - started
        answer = self._write(memory, tokenised, new_tokens)
        return {
            **answer,
            "seconds": encoded + answer["seconds"],
            "encode_seconds": encoded,
            "cell_ids": list(tokenised.cell_ids),
        }

    @torch.inference_mode()
    def do_encode(self, cells: int, batch: int = 8, save: str = "") -> Answer:
        """Encode only; `save` keeps the memory as float32 .npy."""
        tokenised = tokenised_cells(self._parts, cells)
        started = time.perf_counter()
        memory, seconds = encode(self._encoder, tokenised, batch)
        total = time.perf_counter() - started
        if save:
            np.save(save, memory.numpy())
        return {"seconds": total, "batch_seconds": seconds}

    def _write(self, memory: Tensor, cells: TokenisedCells, new_tokens: int) -> Answer:
        """Write greedily; the prefill includes projecting the memory."""
        prompt = torch.tensor(self._parts.prompt_ids)
        prompt_len, capacity = len(prompt), len(prompt) + new_tokens
        places, clock = torch.arange(capacity), StepClock()
        texts = self._decoder.begin(memory, cells.mask, capacity)
        tokens = prompt.expand(len(memory), -1)
        logits = self._decoder(tokens, places[:prompt_len], prompt_len, None, texts)
        chosen = [logits.argmax(-1, keepdim=True)]
        clock.tick()
        for t in range(prompt_len, capacity - 1):
            at = places[t : t + 1].clone()
            if self._is_static:  # one graph for all steps: the whole cache under a mask
                logits = self._step(chosen[-1], at, capacity, places <= at[:, None], texts)
            else:
                logits = self._step(chosen[-1], at, t + 1, None, texts)
            chosen.append(logits.argmax(-1, keepdim=True))
            clock.tick()
        return clock.answer(torch.cat(chosen, 1).tolist(), new_tokens)


if __name__ == "__main__":
    serve(SeedLingoCell())
