"""The TensorRT backend: a bundle with the plans that were built from it."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cellscribe.engine.backends.base import Encoded, SlotPlan
from cellscribe.engine.backends.tensorrt.device import CudaDevice, Device, Tensor
from cellscribe.engine.backends.tensorrt.engine import Engine, Run
from cellscribe.engine.backends.tensorrt.find import choose_plan
from cellscribe.engine.backends.tensorrt.layout import Described, cache_names, check_plan, described
from cellscribe.engine.backends.tensorrt.machine import this_machine
from cellscribe.engine.backends.tensorrt.plan import REBUILD, Plan
from cellscribe.engine.backends.tensorrt.plugins import load_plugins
from cellscribe.engine.backends.tensorrt.products import Installed, require
from cellscribe.engine.backends.tensorrt.slots import Parts, TensorRTSlots, pieces
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, PREFIX, Bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import BundleError, PlanError, RoomError


def plan_file(graph: str) -> str:
    """Return the name of the plan made from a graph: decoder.onnx -> decoder.plan."""
    return str(Path(graph).with_suffix(".plan"))


def open_tensorrt(
    bundle: Bundle, *, slots: int | None = None, plans: Path | None = None, device: int = 0
) -> TensorRTBackend:
    """Open the plan of a bundle that fits this machine.

    Parameters
    ----------
    slots
        How many texts are to be written at a time; the smallest plan with as many is taken.
    plans
        Folder of plans; None looks into the bundle and into the user's cache.
    device
        Number of the GPU.

    Raises
    ------
    PlanError
        When no plan fits; it says why.
    """
    plan = choose_plan(bundle, this_machine(device), slots=slots, output=plans)
    return TensorRTBackend(bundle, plan, CudaDevice(device))


class TensorRTBackend:
    """Runs a bundle through one plan.

    The plan's files are compared with its recipe first. `installed` is the product that built it; None imports it.

    Raises
    ------
    PlanError
        When the plan is damaged, or its product or plugins are missing.
    """

    def __init__(self, bundle: Bundle, plan: Plan, device: Device, installed: Installed | None = None) -> None:
        self.bundle, self.plan, self._device = bundle, plan, device
        for name, expected in plan.files.items():
            if record(plan.folder / name) != expected:
                raise PlanError(f"{plan.folder / name} is not what its recipe says; {REBUILD}.")
        self._installed = installed or require(plan.recipe.product)
        load_plugins(self._installed, plan.recipe.plugins)
        self._torch: Any = importlib.import_module("torch")

    @property
    def device(self) -> str:
        """Device, product and plan in words."""
        return f"{self._device.name}, {self._installed}, plan {self.plan.folder.name}"

    @property
    def cells_ahead(self) -> int:
        """One batch of the encoder."""
        return self.plan.recipe.encode_batch

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells; their memory stays on the GPU."""
        count, genes = batch.genes.shape
        if genes > self.plan.recipe.genes:
            raise PlanError(
                f"{self.plan} holds {self.plan.recipe.genes} tokens per cell and a cell has {genes}; build one with "
                f"`cellscribe build --genes {genes}`."
            )
        width, torch, device = self.bundle.manifest.encoder.d_model, self._torch, self._device
        memory = device.zeros((count, genes, width), torch.float16)
        cell = device.zeros((count, width), torch.float32)
        given = {"genes": (batch.genes, np.int64), "values": (batch.values, np.float32), "mask": (batch.mask, np.bool_)}
        with device.working():
            inputs = {name: device.upload(np.asarray(array, dtype)) for name, (array, dtype) in given.items()}
            for first, size in pieces(np.arange(count), self.plan.recipe.encode_batch):
                rows = slice(first, first + size)
                part = {name: tensor[rows] for name, tensor in inputs.items()}
                self._encoder.bind({**part, "memory": memory[rows], "cell": cell[rows]})
                self._encoder()
        return Encoded(memory, np.asarray(device.fetch([cell])()[0], np.float32))

    def open_slots(self, plan: SlotPlan) -> TensorRTSlots:
        """Allocate the slots of a run.

        Raises
        ------
        RoomError
            When they do not fit; it says the bytes needed and how many slots would fit.
        PlanError
            When the plan is too small for them.
        """
        check_plan(self.plan, plan)
        parts, _ = self._parts, self._encoder  # loaded first, so that the slots are fitted into what they leave
        try:
            return TensorRTSlots(parts, replace(plan, num_slots=max(plan.num_slots, 1)))
        except self._torch.OutOfMemoryError as error:
            raise RoomError(
                f"{self._device.name} ran out of memory while {plan.num_slots} slots were laid out; half of them may "
                "fit, so choose a smaller --batch-size.",
                plan.num_slots // 2,
            ) from error

    @cached_property
    def _encoder(self) -> Run:
        engine = self._engine(ENCODER)
        scratch = self._device.zeros((max(engine.scratch_bytes(), 256),), self._torch.uint8)
        self._encoder_scratch = scratch  # the context holds its address, not the tensor
        return engine.open_run(self._device, 0, scratch)

    @cached_property
    def _parts(self) -> Parts:
        if not self.bundle.describes:
            raise BundleError(
                f"the bundle {self.bundle.name} holds an encoder alone; it embeds cells but writes no text."
            )
        parts = described(self.bundle)
        cross = self._engine(CROSS) if parts.cross.prepared else None
        caches, hidden = self._prefix(parts)
        return Parts(self._torch, self._device, self.plan, parts, self._engine(DECODER), cross, caches, hidden)

    def _prefix(self, parts: Described) -> tuple[Tensor, Tensor]:
        """Upload what is known of the prompt; sizes are the manifest's, or it is refused."""
        shape, known = parts.decoder, len(parts.prompt.token_ids) - 1
        stored = self.bundle.tensors(PREFIX)
        caches = np.zeros((2 * shape.n_lower, shape.n_kv_heads, known, shape.d_head), np.float16)
        hidden = np.zeros((known, shape.d_model), np.float16)
        targets = {name: caches[i] for i, name in enumerate(cache_names(shape)[: 2 * shape.n_lower])}
        for name, target in (targets | {"hidden": hidden}).items():
            if name not in stored or stored[name].shape != target.shape:
                raise BundleError(
                    f"the bundle {self.bundle.name} has no {name} {list(target.shape)} in {PREFIX}; export it anew."
                )
            target[...] = stored[name]
        return self._device.upload(caches), self._device.upload(hidden)

    def _engine(self, graph: str) -> Engine:
        name = plan_file(graph)
        if name not in self.plan.files:
            raise PlanError(f"{self.plan} has no {name}; {REBUILD}.")
        return Engine(self._installed, self.plan.folder / name)
