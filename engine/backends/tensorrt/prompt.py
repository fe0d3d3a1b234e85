"""The prompt of neighbouring rows, run between the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cellscribe.engine.backends.tensorrt.device import Device, Tensor
from cellscribe.engine.backends.tensorrt.engine import Engine
from cellscribe.engine.backends.tensorrt.layout import Described, cache_names
from cellscribe.engine.backends.tensorrt.pieces import sizes
from cellscribe.engine.backends.tensorrt.plan import PROMPT, Plan
from cellscribe.engine.backends.tensorrt.staging import Rows

_BROUGHT = ("memory_mask", "raw_memory")


@dataclass(frozen=True)
class Parts:
    """What slots are made from.

    On the device, of the prompt without its last token (P - 1 positions): keys and values of the layers below the first
    cross-attention layer in turn, [2·Ll, K, P - 1, D], and the hidden states that enter it, [P - 1, d].
    """

    torch: Any
    device: Device
    plan: Plan
    described: Described
    decoder: Engine
    cross: Engine | None
    prefix_caches: Tensor
    prefix_hidden: Tensor

    @property
    def engines(self) -> tuple[Engine, ...]:
        """All engines."""
        return (self.decoder, self.cross) if self.cross else (self.decoder,)


class Prompt:
    """Runs the prompt for up to `batch` neighbouring rows of the slots' tensors.

    All but its last token is known below the first cross-attention layer. `caches` [2·L, B, K, C, D] are the slots'.
    """

    def __init__(self, parts: Parts, batch: int, tensors: dict[str, Tensor], caches: Tensor, scratch: Tensor) -> None:
        self._parts, self.batch, self._caches = parts, batch, caches
        self._inputs = self._own_inputs()
        self._rows = Rows(parts.device, {n: t for n, t in tensors.items() if n not in self._inputs}, batch)
        self._run = parts.decoder.open_run(PROMPT, scratch)
        self._prepare = parts.cross.open_run(0, scratch) if parts.cross else None

    def warm_up(self) -> None:
        """Run every size once, so that nothing is compiled while texts are written."""
        with self._parts.device.working():
            for count in sizes(self.batch):
                self.run(slice(0, count))

    def run(self, rows: slice) -> None:
        """Run it for some rows."""
        parts, part = self._parts, self._rows.part(rows)
        self._rows.bring(_BROUGHT, rows)
        if self._prepare is not None and parts.cross is not None:
            self._prepare.bind({name: part[name] for name in parts.cross.bindings if name in part})
            self._prepare()
        else:
            part["memory"].copy_(part["raw_memory"])
        self._caches[:, rows].zero_()  # a text that failed leaves NaN behind, which no mask keeps out of a sum
        lower, known = parts.prefix_caches.shape[0], parts.prefix_caches.shape[2]
        self._caches[:lower, rows, :, :known].copy_(parts.prefix_caches[:, None])
        count = rows.stop - rows.start
        self._run.bind(bound(parts, part | {name: value[:count] for name, value in self._inputs.items()}))
        self._run()
        self._rows.take_back(rows)

    def _own_inputs(self) -> dict[str, Tensor]:
        parts, recipe = self._parts, self._parts.plan.recipe
        positions = np.tile(np.arange(recipe.prompt_len), (self.batch, 1))
        hidden = parts.device.zeros((self.batch, *parts.prefix_hidden.shape), parts.torch.float16)
        with parts.device.working():
            hidden.copy_(parts.prefix_hidden)
        return {
            "tokens": parts.device.upload(np.full((self.batch, 1), parts.described.prompt.token_ids[-1])),
            "hidden": hidden,
            "positions": parts.device.upload(positions),
            "mask": parts.device.upload(np.arange(recipe.capacity) <= positions[:, :, None]),
        }


def bound(parts: Parts, part: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by the decoder's names; a cache is bound twice, and updated in place."""
    named = part | {f"new_{name}": part[name] for name in cache_names(parts.described.decoder)}
    return {name: named[name] for name in parts.decoder.bindings if name in named}
