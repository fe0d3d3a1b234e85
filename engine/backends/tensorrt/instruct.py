"""Bundles that follow instructions, with the plans that were built from them.

Profiles are decoded by ONNX Runtime on the CPU: once a cell that is written, a few products of one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cellscribe.engine.backends.base import Array, Floats
from cellscribe.engine.backends.budget import check_room
from cellscribe.engine.backends.cpu import cpu_problem
from cellscribe.engine.backends.cpu.backend import open_library
from cellscribe.engine.backends.device_instruct import DeviceInstruct
from cellscribe.engine.backends.instruct import Profiles, instruct_shapes
from cellscribe.engine.backends.onnxruntime_instruct import OnnxRuntimeInstruct
from cellscribe.engine.backends.onnxruntime_instruct_cuda import instruct_budget
from cellscribe.engine.backends.sessions import default_threads
from cellscribe.engine.backends.tensorrt.device import CudaDevice, Device, Tensor
from cellscribe.engine.backends.tensorrt.find import usable_plans
from cellscribe.engine.backends.tensorrt.layout import check_in_place
from cellscribe.engine.backends.tensorrt.machine import this_machine
from cellscribe.engine.backends.tensorrt.plan import Plan
from cellscribe.engine.backends.tensorrt.plan_engines import PlanEngines
from cellscribe.engine.backends.tensorrt.products import Installed, require
from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.backends.text_feed import room_for
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import DECODER
from cellscribe.engine.bundle.shapes import DecoderShape
from cellscribe.engine.decode.sampling import Greedy


def open_tensorrt_instruct(bundle: Bundle, *, device: int = 0, plans: Path | None = None) -> TensorRTInstruct:
    """Open the plans of a bundle that follows instructions and that fit this machine; see ``open_tensorrt``."""
    return TensorRTInstruct(bundle, usable_plans(bundle, this_machine(device), plans), CudaDevice(device))


class TensorRTInstruct(DeviceInstruct):
    """Runs a bundle that follows instructions through the plan that holds most; as ``TensorRTBackend``."""

    def __init__(
        self,
        bundle: Bundle,
        plans: Sequence[Plan],
        device: Device,
        product: Callable[[str], Installed] = require,
    ) -> None:
        self.plan = max(plans, key=lambda one: (one.recipe.prompt_len, one.recipe.slots, one.recipe.max_new_tokens))
        self._installed, self._card = product(self.plan.recipe.product), device
        self._profiles = OnnxRuntimeInstruct(bundle)
        super().__init__(bundle, _Engines(bundle, self.plan, self._installed, device))

    @property
    def device(self) -> str:
        """Device, product and plan in words."""
        return f"{self._card.name}, {self._installed}, plan {self.plan.folder.name}"

    @property
    def precision(self) -> str:
        """Precision of the plan, whatever that of the bundle is."""
        return self.plan.recipe.precision

    def write_profiles(self, conditions: Floats, latents: Floats, libraries: Floats) -> Profiles:
        """Decode conditions on the CPU."""
        return self._profiles.write_profiles(conditions, latents, libraries)


class _Engines(PlanEngines):
    """The engines of a plan, and what it holds."""

    def __init__(self, bundle: Bundle, plan: Plan, installed: Installed, device: Device) -> None:
        super().__init__(bundle, plan, installed, device)
        self._shapes = instruct_shapes(bundle)
        self.most_tokens = plan.recipe.prompt_len
        self.dtype = np.dtype(np.float16 if plan.recipe.precision == "fp16" else np.float32)

    @property
    def greedy(self) -> Greedy | None:
        """Our library's way of finding the most probable token, where it runs."""
        return None if cpu_problem() else open_library(default_threads(), None).greedy

    def check_cell(self, num_genes: int) -> None:
        """Raise PlanError for a cell that the plan does not hold."""
        self.check("expressed genes per cell", "--genes", num_genes, self.plan.recipe.genes)

    def check_prompt(self, num_tokens: int) -> None:
        """Raise PlanError for a prompt that the plan does not hold."""
        self.check("tokens per prompt", "--prompt-tokens", num_tokens, self.plan.recipe.prompt_len)

    def capacity(self, plan: TextPlan) -> int:
        """Return the positions of a slot of the plan; PlanError or RoomError where it does not hold the run."""
        recipe, t5 = self.plan.recipe, self._shapes.t5
        self.check("slots", "--slots", plan.num_slots, recipe.slots)
        self.check_prompt(plan.longest_memory)
        self.check("new tokens", "--max-new-tokens", plan.max_new_tokens, recipe.max_new_tokens)
        self.check("positions", "--max-new-tokens", room_for(plan), recipe.capacity)
        heads = (t5.n_heads, t5.n_heads, t5.d_head)
        shape = DecoderShape(t5.vocab_size, t5.d_model, t5.n_layers, 0, *heads, t5.d_ffn, 0)
        check_in_place(self.plan, self.engine(DECODER).updated_in_place(), shape)
        needed = instruct_budget(self._shapes, plan, self.dtype.itemsize)
        check_room(self.card.free_bytes(), needed, self.card.name)
        return recipe.capacity

    def write(self, target: Tensor, array: Array) -> None:
        """Copy an array of the host into a tensor."""
        target.copy_(self.upload(array))

    def bound(self, graph: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Callable[[], None]:
        """Bind a context of its own to tensors."""
        run = self.new_run(graph)
        run.bind({**inputs, **outputs})
        return run
