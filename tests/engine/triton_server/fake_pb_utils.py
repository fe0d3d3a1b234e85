"""Stands in for triton_python_backend_utils: what the Python model uses of it, in its ways."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
_OUTPUTS = {"TEXT": "O", "TOKEN": "q", "LOGPROB": "f", "TOP_GENES": "O", "TOP_GENE_WEIGHTS": "f", "FINISH_REASON": "O",
            "STATUS": "O"}  # fmt: skip


class TritonModelException(Exception):  # noqa: N818 - the real one's name
    """What the real module raises."""


class TritonError:
    """An error for a client."""

    UNAVAILABLE, INVALID_ARG, CANCELLED = 14, 3, 1

    def __init__(self, message: str, code: int = 13) -> None:
        self.message, self.code = message, code


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array


class InferenceResponse:
    """Tensors, or an error."""

    def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
        self.tensors = {one.name(): one.as_numpy() for one in output_tensors}
        self.error = error
        kinds = {name: np.dtype(kind) for name, kind in _OUTPUTS.items()}
        assert error is not None or {name: array.dtype for name, array in self.tensors.items()} == kinds


@dataclass
class Sender:
    """Takes responses; nothing may come after the final one."""

    responses: list[InferenceResponse] = field(default_factory=list)
    is_final: threading.Event = field(default_factory=threading.Event)
    has_left: bool = False

    def is_cancelled(self) -> bool:
        return self.has_left

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        if self.is_final.is_set():
            raise TritonModelException("the final response was sent already")
        if response is not None:
            self.responses.append(response)
        if flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL:
            self.is_final.set()


@dataclass
class Request:
    """Inputs by name, as arrays."""

    inputs: dict[str, Any]
    identity: str = ""
    sender: Sender = field(default_factory=Sender)

    def request_id(self) -> str:
        return self.identity

    def get_response_sender(self) -> Sender:
        return self.sender

    def answer(self) -> InferenceResponse:
        """Wait for the final response and return it."""
        assert self.sender.is_final.wait(60)
        return self.sender.responses[-1]


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    value = request.inputs.get(name)
    return None if value is None else Tensor(name, value)
