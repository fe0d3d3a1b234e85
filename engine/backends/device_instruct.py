"""Bundles that follow instructions on a device that keeps states and caches: how work is cut into runs.

Prompts run in groups of one size, padded to lengths that are a multiple of 32, so that the states of a prompt follow
from the prompt alone. Tokens are chosen on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cellscribe.engine.backends.base import Array, Floats
from cellscribe.engine.backends.device_instruct_slots import DeviceInstructSlots
from cellscribe.engine.backends.device_match import by_length
from cellscribe.engine.backends.instruct import EncoderPrompt, ExpressedCell, instruct_shapes
from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import ENCODER, TOWER
from cellscribe.engine.decode.sampling import Greedy

PROMPTS, TOKENS_STEP = 16, 32  # of a run of the encoder: prompts, and what their padded length is a multiple of


class InstructDevice(Protocol):
    """What holds arrays, which look like NumPy's to whoever reads `shape`, and runs graphs on them."""

    @property
    def most_tokens(self) -> int:
        """Tokens of a prompt at most."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """What features, states and caches are made of."""

    @property
    def greedy(self) -> Greedy | None:
        """A quick way of finding the most probable token on the host, where there is one."""

    def check_cell(self, num_genes: int) -> None:
        """Raise a BackendError where a cell expresses too many genes for it."""

    def check_prompt(self, num_tokens: int) -> None:
        """Raise a BackendError where a prompt is too long for it."""

    def capacity(self, plan: TextPlan) -> int:
        """Return the positions of a slot; a BackendError where it has too few, or no room for so many slots."""

    def running(self) -> AbstractContextManager[Any]:
        """Work with the device; what fails there becomes one sentence."""

    def empty(self, graph: str, name: str, shape: tuple[int, ...]) -> Any:
        """Allocate an input or output of a graph, of zeros."""

    def upload(self, array: Array) -> Any:
        """Copy an array to the device."""

    def write(self, target: Any, array: Array) -> None:
        """Copy an array of the host into one of the device, of the same type."""

    def read(self, array: Any) -> Array:
        """Copy an array to the host."""

    def rows(self, array: Any, start: int, stop: int) -> Any:
        """Return rows start..stop-1 of an array, in place."""

    def copy(self, target: Any, source: Any) -> None:
        """Copy an array of the device into another one."""

    def run(self, graph: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Run a graph of the bundle."""

    def bound(self, graph: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Callable[[], None]:
        """Return what runs a graph on the same arrays again and again; these stay alive with it."""


@dataclass(frozen=True, eq=False)
class KeptPrompt:
    """The states of a prompt on the device, [L, d] filled up, and how many are its own."""

    array: Any
    length: int
    device: InstructDevice

    def __len__(self) -> int:
        return self.length

    def cpu(self) -> KeptPrompt:
        """Return itself; its ``numpy()`` is a copy on the host."""
        return self

    def numpy(self) -> Array:
        """Copy its own states to the host, [S, d]."""
        return self.device.read(self.array)[: self.length]


class DeviceInstruct:
    """Reads cells, encodes prompts and writes texts on a device; a base of backends."""

    def __init__(self, bundle: Bundle, device: InstructDevice) -> None:
        self.bundle, self.shapes, self._device = bundle, instruct_shapes(bundle), device

    def read_cells(self, cells: Iterable[ExpressedCell]) -> Iterator[Floats]:
        """Read cells one after the other; features come back to the host."""
        shape, device = (1, self.shapes.tower.n_queries, self.shapes.t5.d_model), self._device
        for cell in cells:
            device.check_cell(len(cell.genes))
            with device.running():
                features = device.empty(TOWER, "features", shape)
                given = {"genes": device.upload(cell.genes[None]), "values": device.upload(cell.values[None])}
                device.run(TOWER, given, {"features": features})
                yield device.read(features)[0].astype(np.float32)

    def encode_prompts(self, prompts: Sequence[EncoderPrompt]) -> list[KeptPrompt]:
        """Encode prompts in groups of one padded length; their states stay on the device."""
        device, found = self._device, dict[int, KeptPrompt]()
        lengths = [len(one.tokens) for one in prompts]
        for length in lengths:
            device.check_prompt(length)
        for length, whose in by_length(lengths, TOKENS_STEP, device.most_tokens).items():
            for start in range(0, len(whose), PROMPTS):
                some = whose[start : start + PROMPTS]
                with device.running():
                    states = self._encode([prompts[i] for i in some], length)
                found |= {i: KeptPrompt(states[row], lengths[i], device) for row, i in enumerate(some)}
        return [found[i] for i in range(len(prompts))]

    def open_instruct_slots(self, plan: TextPlan) -> DeviceInstructSlots:
        """Allocate the slots of a run; RoomError when the device's free memory does not hold them."""
        with self._device.running():
            return DeviceInstructSlots(self._device, self.shapes, plan)

    def _encode(self, prompts: Sequence[EncoderPrompt], length: int) -> Any:
        """Encode a group -> [16, length, d]; rows without a prompt count nothing."""
        t5, queries, device = self.shapes.t5, self.shapes.tower.n_queries, self._device
        tokens, mask = np.zeros((PROMPTS, length), np.int64), np.zeros((PROMPTS, length), bool)
        starts = np.full(PROMPTS, length, np.int64)
        features = np.zeros((PROMPTS, queries, t5.d_model), device.dtype)
        for row, one in enumerate(prompts):
            tokens[row, : len(one.tokens)], mask[row, : len(one.tokens)] = one.tokens, True
            if one.features is not None:
                starts[row], features[row] = one.start, one.features
        states = device.empty(ENCODER, "states", (PROMPTS, length, t5.d_model))
        given = {"tokens": tokens, "mask": mask, "features": features, "starts": starts}
        device.run(ENCODER, {name: device.upload(array) for name, array in given.items()}, {"states": states})
        return states
