"""What writers of random models share: a folder renamed into place, and weights written tensor by tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_BYTES_OF_FLOAT = 4


def write_folder(
    folder: Path,
    files: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    weights: Iterable[npt.NDArray[np.float32]],
) -> Path:
    """Write files of JSON and model.safetensors (fp32) under a temporary name and rename it; nothing if it is there.

    Parameters
    ----------
    files
        JSON by the file's name; a config.json is among them.
    shapes, weights
        The name and shape of every weight, and the weights in that order, drawn when they are written.
    """
    if (folder / "config.json").is_file():
        return folder
    made = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    _write_weights(made / "model.safetensors", shapes, weights)
    for name, content in files.items():
        (made / name).write_text(json.dumps(content))
    made.rename(folder)
    return folder


def _write_weights(
    path: Path, shapes: Mapping[str, tuple[int, ...]], weights: Iterable[npt.NDArray[np.float32]]
) -> None:
    """Write a safetensors file tensor by tensor, so that the model is never in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, size in shapes.items():
        end = at + int(np.prod(size)) * _BYTES_OF_FLOAT
        header[name], at = {"dtype": "F32", "shape": list(size), "data_offsets": [at, end]}, end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for drawn in weights:
            file.write(np.ascontiguousarray(drawn, "<f4").data)
