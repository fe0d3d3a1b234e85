"""Inputs and outputs of a bundle's graphs, as Triton wants them described."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellscribe.engine.backends.sessions import open_session
from cellscribe.engine.errors import BundleError
from cellscribe.engine.triton.config import ANY, Tensor

_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
}


def tensors_of(path: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and the outputs of an ONNX graph, without the batch that each of them begins with.

    Raises
    ------
    BundleError
        When ONNX Runtime cannot load it, or a tensor has a type or a first size that Triton cannot serve in batches.
    """
    session = open_session(path, 1)
    return _described(path, session.get_inputs()), _described(path, session.get_outputs())


def _described(path: Path, values: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(_tensor(path, value.name, value.type, value.shape) for value in values)


def _tensor(path: Path, name: str, kind: str, shape: list[int | str | None]) -> Tensor:
    if kind not in _TYPES or not shape or isinstance(shape[0], int):
        raise BundleError(
            f"{path} has {name} as {kind} {shape}, which cannot be served in batches; export the bundle anew."
        )
    return Tensor(name, _TYPES[kind], tuple(size if isinstance(size, int) else ANY for size in shape[1:]))
