"""Bundles that read ranks, with the plans that were built from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cellscribe.engine.backends.device_match import CELLS, DeviceMatch
from cellscribe.engine.backends.tensorrt.device import CudaDevice, Device
from cellscribe.engine.backends.tensorrt.find import usable_plans
from cellscribe.engine.backends.tensorrt.machine import this_machine
from cellscribe.engine.backends.tensorrt.plan import Plan
from cellscribe.engine.backends.tensorrt.plan_engines import PlanEngines
from cellscribe.engine.backends.tensorrt.products import Installed, require
from cellscribe.engine.bundle import Bundle


def open_tensorrt_match(bundle: Bundle, *, device: int = 0, plans: Path | None = None) -> TensorRTMatch:
    """Open the plans of a bundle that reads ranks and that fit this machine; see ``open_tensorrt``."""
    return TensorRTMatch(bundle, usable_plans(bundle, this_machine(device), plans), CudaDevice(device))


class TensorRTMatch(DeviceMatch):
    """Runs a bundle that reads ranks through the plan that holds most; parameters and errors as ``TensorRTBackend``."""

    def __init__(
        self,
        bundle: Bundle,
        plans: Sequence[Plan],
        device: Device,
        product: Callable[[str], Installed] = require,
    ) -> None:
        self.plan = max(plans, key=lambda one: (one.recipe.genes, one.recipe.prompt_len, one.recipe.slots))
        self._installed, self._card = product(self.plan.recipe.product), device
        super().__init__(bundle, _Engines(bundle, self.plan, self._installed, device))

    @property
    def device(self) -> str:
        """Device, product and plan in words."""
        return f"{self._card.name}, {self._installed}, plan {self.plan.folder.name}"

    @property
    def precision(self) -> str:
        """Precision of the plan, whatever that of the bundle is."""
        return self.plan.recipe.precision


class _Engines(PlanEngines):
    """The engines of a plan, and what it holds."""

    cells = CELLS

    def __init__(self, bundle: Bundle, plan: Plan, installed: Installed, device: Device) -> None:
        super().__init__(bundle, plan, installed, device)
        self.texts = plan.recipe.slots

    def check_cell(self, num_tokens: int) -> None:
        """Raise PlanError for a cell that the plan does not hold."""
        self.check("tokens per cell", "--genes", num_tokens, self.plan.recipe.genes)

    def check_text(self, num_tokens: int) -> None:
        """Raise PlanError for a text that the plan does not hold."""
        self.check("tokens per text", "--prompt-tokens", num_tokens, self.plan.recipe.prompt_len)
