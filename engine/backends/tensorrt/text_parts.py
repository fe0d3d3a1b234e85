"""What texts after prompts of their own are made from: tensors, their sizes, and prompts in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellscribe.engine.backends.base import Array, Ints
from cellscribe.engine.backends.tensorrt.device import Device, Tensor
from cellscribe.engine.backends.tensorrt.engine import Engine
from cellscribe.engine.backends.tensorrt.layout import Kept, cache_names
from cellscribe.engine.backends.tensorrt.plan import PROMPT, Plan, piece_sizes
from cellscribe.engine.backends.text_feed import visible
from cellscribe.engine.bundle.shapes import DecoderShape, DecoderStyle


@dataclass(frozen=True)
class TextParts:
    """A plan of a decoder without an encoder, opened, and the device that it runs on."""

    torch: Any
    device: Device
    plan: Plan
    shape: DecoderShape
    style: DecoderStyle
    decoder: Engine

    @property
    def dtype(self) -> Any:
        """Type of the caches in torch."""
        return self.torch.float16 if self.plan.recipe.precision == "fp16" else self.torch.float32

    @property
    def capacity(self) -> int:
        """Positions of the caches."""
        return self.plan.recipe.capacity

    def caches(self, *rows: int) -> Tensor:
        """Allocate caches [2·L, rows, K, C, D] of every layer in turn, in one block."""
        shape = self.shape
        return self.device.zeros((2 * shape.n_layers, *rows, shape.n_kv_heads, self.capacity, shape.d_head), self.dtype)

    def bound(self, caches: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors by the decoder's names; a cache of `caches` [2·L, B, K, C, D] is bound twice."""
        named = {name: caches[i] for i, name in enumerate(cache_names(self.shape))}
        return {**tensors, **named, **{f"new_{name}": tensor for name, tensor in named.items()}}

    def masks(self, positions: Ints) -> dict[str, Array]:
        """Return the masks that the decoder takes for positions int64 [B, T]."""
        found: dict[str, Array] = {"mask": visible(positions, self.capacity)}
        if self.style.window:
            found["near"] = visible(positions, self.capacity, self.style.window)
        return found

    def step_tensors(self, rows: int, width: int) -> dict[str, Tensor]:
        """Allocate what a run of all rows takes and gives besides caches and logits."""
        torch, zeros = self.torch, self.device.zeros
        names = self.masks(np.zeros((1, 1), np.int64))
        return {
            "tokens": zeros((rows, width), torch.int64),
            "positions": zeros((rows, width), torch.int64),
            "chosen": zeros((rows, 1), torch.int64),
            "states": zeros((rows, width, self.shape.d_model), torch.float32),
            **{name: zeros((rows, width, self.capacity), torch.bool) for name in names},
        }


def text_layout(parts: TextParts, rows: int) -> dict[str, Kept]:
    """Return the sizes of what a step takes and gives, by name, with one token a row."""
    shape, capacity = parts.shape, parts.capacity
    caches = Kept((rows, shape.n_kv_heads, capacity, shape.d_head), str(parts.dtype).removeprefix("torch."))
    masks = ("mask", "near") if parts.style.window else ("mask",)
    return {
        "tokens": Kept((rows, 1), "int64"),
        "positions": Kept((rows, 1), "int64"),
        "chosen": Kept((rows, 1), "int64"),
        **{name: Kept((rows, 1, capacity), "bool") for name in masks},
        **dict.fromkeys(cache_names(shape), caches),
        "logits": Kept((rows, 1, shape.vocab_size), "float32"),
        "states": Kept((rows, 1, shape.d_model), "float32"),
    }


class PromptPieces:
    """Runs tokens of one row in pieces of few sizes, each with few tokens behind the last one that nobody sees."""

    def __init__(self, parts: TextParts, scratch: Tensor) -> None:
        self._parts = parts
        self._run = parts.decoder.open_run(PROMPT, scratch)
        self._sizes = piece_sizes(parts.capacity)
        shape, zeros = parts.shape, parts.device.zeros
        self._states = zeros((1, self._sizes[0], shape.d_model), parts.torch.float32)
        self.logits = zeros((1, 1, shape.vocab_size), parts.torch.float32)

    def warm_up(self, caches: Tensor) -> None:
        """Run every size once, so that nothing is compiled while texts are written."""
        for size in self._sizes:
            self._piece(np.zeros(size, np.int64), 0, size, caches)

    def run(self, tokens: Ints, start: int, caches: Tensor) -> Iterator[Tensor]:
        """Run tokens int64 [T] from position `start` on over caches [2·L, 1, K, C, D], a piece at a time.

        Yields the last states float32 [n, d] of every piece; `logits` [1, 1, V] are those of its last token. Both are
        good until the next piece.
        """
        at = 0
        while at < len(tokens):
            size = self._fitting(len(tokens) - at, self._parts.capacity - start - at)
            count = min(size, len(tokens) - at)
            yield self._piece(tokens[at : at + count], start + at, size, caches)
            at += count

    def _fitting(self, left: int, room: int) -> int:
        """Return the smallest size that holds all that is left, or else the largest that is filled."""
        holding = [size for size in self._sizes if left <= size <= room]
        return holding[-1] if holding else next(size for size in self._sizes if size <= left)

    def _piece(self, tokens: Ints, start: int, size: int, caches: Tensor) -> Tensor:
        parts, count = self._parts, len(tokens)
        padded = np.concatenate((tokens, np.repeat(tokens[-1:], size - count)))[None]
        positions = start + np.arange(size)[None]
        positions = np.minimum(positions, start + count - 1)  # one beyond the model's would have no embedding
        arrays: dict[str, Array] = {"tokens": padded, "positions": positions, "chosen": np.array([[count - 1]])}
        given = {name: parts.device.upload(array) for name, array in (arrays | parts.masks(positions)).items()}
        states = self._states[:, :size]
        self._run.bind(parts.bound(caches, {**given, "states": states, "logits": self.logits}))
        self._run()
        return states[0, :count]
