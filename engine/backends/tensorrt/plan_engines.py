"""The engines of a plan, opened when they are first run, and torch's tensors for them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cellscribe.engine.backends.base import Array
from cellscribe.engine.backends.tensorrt.backend import plan_file
from cellscribe.engine.backends.tensorrt.device import Device, Tensor
from cellscribe.engine.backends.tensorrt.engine import Engine, Run
from cellscribe.engine.backends.tensorrt.faults import running
from cellscribe.engine.backends.tensorrt.homes import build_command
from cellscribe.engine.backends.tensorrt.plan import REBUILD, Plan
from cellscribe.engine.backends.tensorrt.products import Installed
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.errors import PlanError


class PlanEngines:
    """The graphs of one plan on a device; one context each, but for those that are bound."""

    def __init__(self, bundle: Bundle, plan: Plan, installed: Installed, device: Device) -> None:
        self._bundle, self.plan, self._installed, self.card = bundle, plan, installed, device
        self._torch: Any = importlib.import_module("torch")
        self._opened: dict[str, tuple[Engine, Run, Tensor]] = {}
        self._run_before: set[tuple[str, tuple[tuple[int, ...], ...]]] = set()

    def check(self, what: str, option: str, asked: int, held: int) -> None:
        """Raise PlanError for more than the plan holds."""
        if asked > held:
            command = build_command(self._bundle, f"{option} {asked}", home=self.plan.folder.parent)
            raise PlanError(f"{self.plan} holds {held} {what} and {asked} are asked for; build one with {command}.")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Work with the device and its stream."""
        with running(self._torch, self.card.name), self.card.working():
            yield

    def empty(self, graph: str, name: str, shape: tuple[int, ...]) -> Tensor:
        """Allocate an input or output of a graph, of the type that the plan has it in."""
        binding = self.engine(graph).bindings.get(name)
        if binding is None:
            raise PlanError(f"{self.plan} has no {name} in {plan_file(graph)}; {REBUILD}.")
        return self.card.zeros(shape, getattr(self._torch, binding.dtype))

    def upload(self, array: Array) -> Tensor:
        """Copy an array to the device."""
        return self.card.upload(array)

    def read(self, array: Tensor) -> Array:
        """Copy a tensor to the host."""
        return self.card.fetch([array])()[0]

    def rows(self, array: Tensor, start: int, stop: int) -> Tensor:
        """Return rows of a tensor, in place."""
        return array[start:stop]

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy a tensor into another one."""
        target.copy_(source)

    def run(self, graph: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Give a run to the device's stream."""
        engine, run, _ = self._open(graph)
        run.bind({**inputs, **outputs})
        run()
        sizes = (graph, tuple(tuple(one.shape) for one in inputs.values()))
        if sizes not in self._run_before:  # its kernels may have been compiled just now
            self._run_before.add(sizes)
            engine.save_kernels()

    def engine(self, graph: str) -> Engine:
        """Return the engine of a graph."""
        return self._open(graph)[0]

    def new_run(self, graph: str) -> Run:
        """Make another context of a graph's engine, on the same scratch memory."""
        engine, _, scratch = self._open(graph)
        return engine.open_run(0, scratch)

    def _open(self, graph: str) -> tuple[Engine, Run, Tensor]:
        if graph not in self._opened:
            name = plan_file(graph)
            if name not in self.plan.files:
                raise PlanError(f"{self.plan} has no {name}; {REBUILD}.")
            engine = Engine(self._installed, self.plan.folder / name, self.plan.files[name], self.card)
            scratch = self.card.zeros((max(engine.scratch_bytes(), 256),), self._torch.uint8)
            self._opened[graph] = (engine, engine.open_run(0, scratch), scratch)
        return self._opened[graph]
