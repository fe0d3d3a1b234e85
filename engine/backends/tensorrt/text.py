"""Bundles that read cells as sentences, with the plans that were built from them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellscribe.engine.backends.base import Floats, Ints
from cellscribe.engine.backends.prompt_rows import OnPrompts
from cellscribe.engine.backends.tensorrt.backend import plan_file
from cellscribe.engine.backends.tensorrt.device import CudaDevice, Device
from cellscribe.engine.backends.tensorrt.engine import Engine
from cellscribe.engine.backends.tensorrt.faults import running
from cellscribe.engine.backends.tensorrt.find import usable_plans
from cellscribe.engine.backends.tensorrt.homes import build_command
from cellscribe.engine.backends.tensorrt.machine import this_machine
from cellscribe.engine.backends.tensorrt.plan import REBUILD, Plan
from cellscribe.engine.backends.tensorrt.plugins import load_plugins
from cellscribe.engine.backends.tensorrt.products import Installed, require
from cellscribe.engine.backends.tensorrt.text_parts import PromptPieces, TextParts
from cellscribe.engine.backends.tensorrt.text_slots import FreeTextSlots, LabelSlots
from cellscribe.engine.backends.text import TextPlan, check_room
from cellscribe.engine.bundle.load import DECODER, Bundle
from cellscribe.engine.errors import BundleError, PlanError, RoomError


def open_tensorrt_text(bundle: Bundle, *, device: int = 0, plans: Path | None = None) -> TensorRTText:
    """Open the plans of a bundle without an encoder that fit this machine; see ``open_tensorrt``."""
    return TensorRTText(bundle, usable_plans(bundle, this_machine(device), plans), CudaDevice(device))


class TensorRTText:
    """Runs a bundle without an encoder through its plans; parameters, attributes and errors as ``TensorRTBackend``."""

    def __init__(
        self,
        bundle: Bundle,
        plans: Sequence[Plan],
        device: Device,
        product: Callable[[str], Installed] = require,
    ) -> None:
        if bundle.manifest.decoder is None or bundle.manifest.style is None:
            raise BundleError(f"the bundle {bundle.name} reads no sentences; choose one of the family c2s.")
        self.bundle, self.shape, self.style = bundle, bundle.manifest.decoder, bundle.manifest.style
        self._plans, self.plan, self._device, self._product = plans, plans[0], device, product
        self._require(self.plan)
        self._torch: Any = importlib.import_module("torch")
        self._parts: TextParts | None = None
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
        return (self._remark,) if self._remark else ()

    def open_text_slots(self, plan: TextPlan) -> FreeTextSlots | LabelSlots:
        """Allocate the slots of a run, in the smallest plan that holds it; errors as ``TensorRTBackend.open_slots``."""
        check_room(self.bundle, plan.longest_prompt, plan.max_new_tokens)
        self.plan = pick_text_plan(self.bundle, self._plans, plan)
        kind = LabelSlots if plan.longest_label else FreeTextSlots
        with running(self._torch, self._device.name):
            try:
                slots = kind(self._parts_of(self.plan), self.bundle.manifest, plan)
            except self._torch.OutOfMemoryError as error:
                raise RoomError(
                    f"{self._device.name} ran out of memory while {plan.num_slots} slots were laid out; half of them "
                    "may fit, so choose a smaller --batch-size.",
                    plan.num_slots // 2,
                ) from error
        self._remark = slots.remark
        return slots

    def embed_prompts(self, prompts: Sequence[Ints], progress: OnPrompts | None = None) -> Floats:
        """Return the mean of the last states over each prompt's tokens, float32 [N, d]; `progress` hears how many."""
        found = np.zeros((len(prompts), self.shape.d_model), np.float32)
        if not prompts:
            return found
        longest = max(map(len, prompts))
        check_room(self.bundle, longest, 0)
        self.plan = pick_text_plan(self.bundle, self._plans, None, longest)
        with running(self._torch, self._device.name), self._device.working():
            parts = self._parts_of(self.plan)
            scratch = self._device.zeros((max(parts.decoder.scratch_bytes(), 256),), self._torch.uint8)
            runs, caches = PromptPieces(parts, scratch), parts.caches(1)
            for i, prompt in enumerate(prompts):
                total = self._device.zeros((self.shape.d_model,), self._torch.float64)
                for states in runs.run(prompt, 0, caches):
                    total += states.double().sum(0)
                found[i] = np.asarray(self._device.fetch([total])()[0], np.float64) / len(prompt)
                if progress:
                    progress(i + 1)
            parts.decoder.save_kernels()
        return found

    def _parts_of(self, plan: Plan) -> TextParts:
        if self._parts is None or self._parts.plan != plan:
            self._parts = None  # its engine goes before another comes
            name = plan_file(DECODER)
            if name not in plan.files:
                raise PlanError(f"{plan} has no {name}; {REBUILD}.")
            engine = Engine(self._require(plan), plan.folder / name, plan.files[name], self._device)
            self._parts = TextParts(self._torch, self._device, plan, self.shape, self.style, engine)
        return self._parts

    def _require(self, plan: Plan) -> Installed:
        installed = self._product(plan.recipe.product)
        load_plugins(installed, plan.recipe.plugins)
        return installed


def pick_text_plan(bundle: Bundle, plans: Sequence[Plan], run: TextPlan | None, positions: int = 0) -> Plan:
    """Return the smallest plan that holds a run, or without one a prompt of as many positions.

    Raises
    ------
    RoomError
        When all that are long enough have too few slots; it says how many the largest has.
    PlanError
        When none is long enough.
    """
    asked = positions if run is None else run.longest_prompt + run.max_new_tokens
    num_slots, new = (1, 0) if run is None else (run.num_slots, run.max_new_tokens)
    long_enough = [one for one in plans if one.recipe.prompt_len + one.recipe.max_new_tokens >= asked]
    fitting = [one for one in long_enough if one.recipe.slots >= num_slots]
    if fitting:
        return min(fitting, key=lambda one: (one.recipe.slots, one.recipe.capacity, one.folder.name))
    options = [f"--prompt-tokens {asked - new}", f"--max-new-tokens {max(new, 1)}", f"--slots {num_slots}"]
    command = build_command(bundle, *options, home=plans[0].folder.parent)
    closest = max(long_enough or plans, key=lambda one: one.recipe.slots if long_enough else one.recipe.capacity)
    held = closest.recipe
    if long_enough:
        message = f"{closest} holds {held.slots} slots and {num_slots} are asked for; ask for fewer, or build one with"
        raise RoomError(f"{message} {command}.", held.slots)
    raise PlanError(
        f"{closest} holds {held.prompt_len + held.max_new_tokens} positions and {asked} are asked for; name fewer "
        f"genes, ask for fewer tokens, or build one with {command}."
    )
