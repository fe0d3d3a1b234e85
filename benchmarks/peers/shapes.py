"""The shapes of all plain models by name, and who writes them."""

from __future__ import annotations

from pathlib import Path

from peers import tiny_llama, tiny_neox
from peers.tiny_llama import LlamaShape
from peers.tiny_neox import NeoxShape

SHAPES: dict[str, LlamaShape | NeoxShape] = {**tiny_llama.SHAPES, **tiny_neox.SHAPES}


def write_model(folder: Path, name: str) -> Path:
    """Write the Hugging Face folder of a shape, unless it is there."""
    shape = SHAPES[name]
    if isinstance(shape, NeoxShape):
        return tiny_neox.write_neox(folder, shape)
    return tiny_llama.write_llama(folder, shape)
