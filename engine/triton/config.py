"""The configuration of a model as Triton Inference Server reads it, in the text form of its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["KIND_AUTO", "KIND_CPU", "KIND_GPU"]
ANY = -1  # stands for a size that varies


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, its type as the schema names it, and its sizes without the batch."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False

    def lines(self, role: str) -> Iterator[str]:
        """Write it as an input or output."""
        yield f"{role} {{"
        yield f"  name: {_quoted(self.name)}"
        yield f"  data_type: {self.data_type}"
        yield f"  dims: [ {', '.join(map(str, self.dims))} ]"
        if self.optional:
            yield "  optional: true"
        yield "}"


@dataclass(frozen=True)
class Config:
    """One model: fields of ``ModelConfig`` in the server's model_config.proto.

    With a `max_batch_size` of 0 the server adds no batch to the sizes of tensors; with another one it joins requests of
    equal sizes, which it holds back for `queue_delay_us` microseconds at most.
    """

    name: str
    backend: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int = 0
    queue_delay_us: int = 0
    kind: Kind = "KIND_AUTO"
    platform: str = ""
    is_decoupled: bool = False
    parameters: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the text of config.pbtxt."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"name: {_quoted(self.name)}"
        if self.platform:
            yield f"platform: {_quoted(self.platform)}"
        yield f"backend: {_quoted(self.backend)}"
        yield f"max_batch_size: {self.max_batch_size}"
        for tensor in self.inputs:
            yield from tensor.lines("input")
        for tensor in self.outputs:
            yield from tensor.lines("output")
        yield f"instance_group {{ count: 1 kind: {self.kind} }}"
        if self.max_batch_size:
            yield f"dynamic_batching {{ max_queue_delay_microseconds: {self.queue_delay_us} }}"
        if self.is_decoupled:
            yield "model_transaction_policy { decoupled: true }"
        for key, value in self.parameters.items():
            yield f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"


def _quoted(text: str) -> str:
    """Quote a string: what JSON escapes, the text form does, too, for characters of ASCII."""
    return json.dumps(text, ensure_ascii=False)
