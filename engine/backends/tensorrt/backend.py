"""The TensorRT backend: a bundle with the plans that were built from it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cellscribe.engine.backends.base import Encoded, SlotPlan
from cellscribe.engine.backends.tensorrt.device import CudaDevice, Device, Tensor
from cellscribe.engine.backends.tensorrt.encoder import Encoder
from cellscribe.engine.backends.tensorrt.engine import Engine
from cellscribe.engine.backends.tensorrt.faults import running
from cellscribe.engine.backends.tensorrt.find import pick_plan, usable_plans
from cellscribe.engine.backends.tensorrt.homes import build_command
from cellscribe.engine.backends.tensorrt.layout import Described, cache_names, described
from cellscribe.engine.backends.tensorrt.machine import this_machine
from cellscribe.engine.backends.tensorrt.plan import REBUILD, Plan
from cellscribe.engine.backends.tensorrt.plugins import load_plugins
from cellscribe.engine.backends.tensorrt.products import Installed, require
from cellscribe.engine.backends.tensorrt.prompt import Parts
from cellscribe.engine.backends.tensorrt.slots import TensorRTSlots
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, PREFIX, Bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import BundleError, PlanError, RoomError


def plan_file(graph: str) -> str:
    """Return the name of the plan made from a graph: decoder.onnx -> decoder.plan."""
    return str(Path(graph).with_suffix(".plan"))


def open_tensorrt(bundle: Bundle, *, device: int = 0, plans: Path | None = None) -> TensorRTBackend:
    """Open the plans of a bundle that fit this machine; a run takes the smallest that holds it.

    Parameters
    ----------
    device
        Number of the GPU.
    plans
        Folder of plans, all of them trusted; None takes those that this user built, in the bundle or in the user's
        cache.

    Raises
    ------
    PlanError
        When no plan fits; it says why.
    """
    return TensorRTBackend(bundle, usable_plans(bundle, this_machine(device), plans), CudaDevice(device))


class TensorRTBackend:
    """Runs a bundle through its plans: each run through the smallest that holds it.

    A plan's files are compared with its recipe when they are loaded. `product` imports a product by its key.

    Attributes
    ----------
    plan
        The plan of the last run; before one, that with most slots.

    Raises
    ------
    PlanError
        When the product or plugins of the first plan are missing.
    """

    def __init__(
        self,
        bundle: Bundle,
        plans: Sequence[Plan],
        device: Device,
        product: Callable[[str], Installed] = require,
    ) -> None:
        self.bundle, self._plans, self.plan, self._device, self._product = bundle, plans, plans[0], device, product
        self._require(self.plan)
        self._torch: Any = importlib.import_module("torch")
        self._encoder: Encoder | None = None
        self._parts: Parts | None = None
        self._remark = ""

    @property
    def device(self) -> str:
        """Device, product and plan in words."""
        is_chosen = self._parts is not None or len(self._plans) == 1
        plan = f"plan {self.plan.folder.name}" if is_chosen else f"{len(self._plans)} plans"
        return f"{self._device.name}, {self._product(self.plan.recipe.product)}, {plan}"

    @property
    def precision(self) -> str:
        """Precision of the plans, whatever that of the bundle is."""
        return self.plan.recipe.precision

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know about the last run."""
        found = [self._remark] if self._remark else []
        if self.bundle.describes and "evidence" not in self.plan.recipe.outputs:
            found.append(
                f"{self.plan} was built without the attention to genes, so texts name none; build one with "
                f"{build_command(self.bundle, home=self.plan.folder.parent)}."
            )
        return tuple(found)

    @property
    def cells_ahead(self) -> int:
        """One batch of the encoder."""
        return self.plan.recipe.encode_batch

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells; their memory stays on the GPU.

        Raises
        ------
        BackendError
            When the GPU fails, or has too little memory (RoomError).
        """
        with running(self._torch, self._device.name):
            return self._encoder_for(batch.genes.shape[1])(batch)

    def open_slots(self, plan: SlotPlan) -> TensorRTSlots:
        """Allocate the slots of a run, in the smallest plan that holds it.

        Raises
        ------
        RoomError
            When they do not fit; it says the bytes needed and how many slots would fit.
        PlanError
            When no plan is large enough for them.
        BackendError
            When the GPU fails.
        """
        if not self.bundle.describes:
            raise BundleError(
                f"the bundle {self.bundle.name} holds an encoder alone; it embeds cells but writes no text."
            )
        self.plan = pick_plan(self.bundle, self._plans, plan)
        with running(self._torch, self._device.name):
            slots = self._lay_out(replace(plan, num_slots=max(plan.num_slots, 1)))
        self._remark = slots.remark
        return slots

    def _lay_out(self, plan: SlotPlan) -> TensorRTSlots:
        try:
            parts, _ = self._parts_of(self.plan), self._encoder_for(plan.num_genes)  # first: slots get what they leave
            return TensorRTSlots(parts, plan)
        except self._torch.OutOfMemoryError as error:
            raise RoomError(
                f"{self._device.name} ran out of memory while {plan.num_slots} slots were laid out; half of them may "
                "fit, so choose a smaller --batch-size.",
                plan.num_slots // 2,
            ) from error

    def _encoder_for(self, genes: int) -> Encoder:
        """Return an encoder for cells of a length; any plan of the bundle computes the same."""
        with self._device.working():
            if self._encoder is None or self._encoder.genes < genes:
                ordered = sorted(self._plans, key=lambda one: (one is not self.plan, one.recipe.genes))
                plan = next((one for one in ordered if one.recipe.genes >= genes), None)
                if plan is None:
                    raise PlanError(
                        f"{self.plan} holds {self.plan.recipe.genes} tokens per cell and a cell has {genes}; build one "
                        f"with {build_command(self.bundle, f'--genes {genes}', home=self.plan.folder.parent)}."
                    )
                width = self.bundle.manifest.encoder_shape.d_model
                self._encoder = Encoder(self._torch, self._device, self._engine(plan, ENCODER), plan, width)
            return self._encoder

    def _parts_of(self, plan: Plan) -> Parts:
        if self._parts is None or self._parts.plan != plan:
            self._parts = None  # its engines go before others come
            parts = described(self.bundle)
            cross = self._engine(plan, CROSS) if parts.cross.prepared else None
            decoder, prefix = self._engine(plan, DECODER), self._prefix(parts)
            self._parts = Parts(self._torch, self._device, plan, parts, decoder, cross, *prefix)
        return self._parts

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

    def _engine(self, plan: Plan, graph: str) -> Engine:
        name = plan_file(graph)
        if name not in plan.files:
            raise PlanError(f"{plan} has no {name}; {REBUILD}.")
        return Engine(self._require(plan), plan.folder / name, plan.files[name], self._device)

    def _require(self, plan: Plan) -> Installed:
        """Return the product of a plan, with the plugins that it was built with."""
        installed = self._product(plan.recipe.product)
        load_plugins(installed, plan.recipe.plugins)
        return installed
