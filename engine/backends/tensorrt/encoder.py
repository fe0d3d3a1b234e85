"""The encoder's plan, at one length and few batch sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from cellscribe.engine.backends.base import Encoded
from cellscribe.engine.backends.tensorrt.device import Device
from cellscribe.engine.backends.tensorrt.engine import Engine
from cellscribe.engine.backends.tensorrt.pieces import pieces, sizes
from cellscribe.engine.backends.tensorrt.plan import Plan
from cellscribe.engine.cells import TokenBatch


class Encoder:
    """Encodes cells, each padded to the plan's length: whatever the cells, nothing is compiled on the way."""

    def __init__(self, torch: Any, device: Device, engine: Engine, plan: Plan, width: int) -> None:
        self._torch, self._device, self._batch, self.genes = torch, device, plan.recipe.encode_batch, plan.recipe.genes
        self._scratch = device.zeros((max(engine.scratch_bytes(), 256),), torch.uint8)
        self._run = engine.open_run(0, self._scratch)
        shape = (self._batch, self.genes)
        self._tensors = {
            "genes": device.zeros(shape, torch.int64),
            "values": device.zeros(shape, torch.float32),
            "mask": device.zeros(shape, torch.bool),
            "memory": device.zeros((*shape, width), torch.float16),
            "cell": device.zeros((self._batch, width), torch.float32),
        }
        self._warm_up()
        engine.save_kernels()

    def __call__(self, batch: TokenBatch) -> Encoded:
        """Encode cells; their memory stays on the device."""
        torch, device, kept = self._torch, self._device, self._tensors
        count, genes = batch.genes.shape
        width = kept["cell"].shape[-1]
        with device.working():
            memory = device.zeros((count, genes, width), torch.float16)
            cell = device.zeros((count, width), torch.float32)
            given = {
                "genes": device.upload(np.asarray(batch.genes, np.int64)),
                "values": device.upload(np.asarray(batch.values, np.float32)),
                "mask": device.upload(np.asarray(batch.mask, np.bool_)),
            }
            for first, size in pieces(np.arange(count), self._batch):
                for name, tensor in given.items():
                    kept[name][:size].zero_()
                    kept[name][:size, :genes].copy_(tensor[first : first + size])
                self._encode(size)
                memory[first : first + size].copy_(kept["memory"][:size, :genes])
                cell[first : first + size].copy_(kept["cell"][:size])
        return Encoded(memory, np.asarray(device.fetch([cell])()[0], np.float32))

    def _encode(self, size: int) -> None:
        self._run.bind({name: tensor[:size] for name, tensor in self._tensors.items()})
        self._run()

    def _warm_up(self) -> None:
        with self._device.working():
            self._tensors["mask"][:, 0] = True
            for size in sizes(self._batch):
                self._encode(size)
