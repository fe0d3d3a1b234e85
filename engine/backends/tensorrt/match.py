"""Bundles that read ranks, with the plans that were built from them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cellscribe.engine.backends.base import Array
from cellscribe.engine.backends.device_match import CELLS, DeviceMatch
from cellscribe.engine.backends.tensorrt.backend import plan_file
from cellscribe.engine.backends.tensorrt.device import CudaDevice, Device, Tensor
from cellscribe.engine.backends.tensorrt.engine import Engine, Run
from cellscribe.engine.backends.tensorrt.faults import running
from cellscribe.engine.backends.tensorrt.find import usable_plans
from cellscribe.engine.backends.tensorrt.homes import build_command
from cellscribe.engine.backends.tensorrt.machine import this_machine
from cellscribe.engine.backends.tensorrt.plan import REBUILD, Plan
from cellscribe.engine.backends.tensorrt.products import Installed, require
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.errors import PlanError


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


class _Engines:
    """The engines of a plan, opened when they are first run, one context each, and torch's tensors for them."""

    cells = CELLS

    def __init__(self, bundle: Bundle, plan: Plan, installed: Installed, device: Device) -> None:
        self._bundle, self._plan, self._installed, self._device = bundle, plan, installed, device
        self._torch: Any = importlib.import_module("torch")
        self._opened: dict[str, tuple[Engine, Run]] = {}
        self._run_before: set[tuple[str, tuple[tuple[int, ...], ...]]] = set()
        self.texts = plan.recipe.slots

    def check_cell(self, num_tokens: int) -> None:
        """Raise PlanError for a cell that the plan does not hold."""
        self._check("tokens per cell", "--genes", num_tokens, self._plan.recipe.genes)

    def check_text(self, num_tokens: int) -> None:
        """Raise PlanError for a text that the plan does not hold."""
        self._check("tokens per text", "--prompt-tokens", num_tokens, self._plan.recipe.prompt_len)

    def _check(self, what: str, option: str, asked: int, held: int) -> None:
        if asked > held:
            command = build_command(self._bundle, f"{option} {asked}", home=self._plan.folder.parent)
            raise PlanError(f"{self._plan} holds {held} {what} and {asked} are asked for; build one with {command}.")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Work with the device and its stream."""
        with running(self._torch, self._device.name), self._device.working():
            yield

    def empty(self, graph: str, name: str, shape: tuple[int, ...]) -> Tensor:
        """Allocate an input or output of a graph, of the type that the plan has it in."""
        binding = self._engine(graph)[0].bindings.get(name)
        if binding is None:
            raise PlanError(f"{self._plan} has no {name} in {plan_file(graph)}; {REBUILD}.")
        return self._device.zeros(shape, getattr(self._torch, binding.dtype))

    def upload(self, array: Array) -> Tensor:
        """Copy an array to the device."""
        return self._device.upload(array)

    def read(self, array: Tensor) -> Array:
        """Copy a tensor to the host."""
        return self._device.fetch([array])()[0]

    def rows(self, array: Tensor, start: int, stop: int) -> Tensor:
        """Return rows of a tensor, in place."""
        return array[start:stop]

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy a tensor into another one."""
        target.copy_(source)

    def run(self, graph: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Give a run to the device's stream."""
        engine, run = self._engine(graph)
        run.bind({**inputs, **outputs})
        run()
        sizes = (graph, tuple(tuple(one.shape) for one in inputs.values()))
        if sizes not in self._run_before:  # its kernels may have been compiled just now
            self._run_before.add(sizes)
            engine.save_kernels()

    def _engine(self, graph: str) -> tuple[Engine, Run]:
        if graph not in self._opened:
            name = plan_file(graph)
            if name not in self._plan.files:
                raise PlanError(f"{self._plan} has no {name}; {REBUILD}.")
            engine = Engine(self._installed, self._plan.folder / name, self._plan.files[name], self._device)
            scratch = self._device.zeros((max(engine.scratch_bytes(), 256),), self._torch.uint8)
            self._opened[graph] = (engine, engine.open_run(0, scratch))
        return self._opened[graph]
