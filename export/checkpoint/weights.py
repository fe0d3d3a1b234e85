"""Reading weight files: safetensors first, `.bin` and `.pt` only as plain tensors, never as pickled code."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cellscribe.engine.errors import CheckpointError

Weights = dict[str, Tensor]


def read_json(path: Path) -> Any:
    """Return the parsed JSON file, or raise CheckpointError saying what is wrong with it."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; the checkpoint folder must hold it.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); copy it again from its source.") from error


def read_safetensors(path: Path) -> Weights:
    """Return the tensors of a safetensors file, mapped into memory."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({error}); copy it again from its source."
        ) from error


def read_pickled_tensors(path: Path) -> Any:
    """Return the contents of a `.bin` or `.pt` file that holds plain tensors and containers only."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; the checkpoint folder must hold it.")
    try:
        is_zip = zipfile.is_zipfile(path)  # files of torch before 1.6 are not, and cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        first = str(error).split("\n")[0]
        raise CheckpointError(
            f"{path} is damaged or holds more than plain tensors ({first}); save its state_dict with torch.save."
        ) from error


def as_weights(value: Any, path: Path) -> Weights:
    """Check that a loaded object maps names to tensors."""
    if isinstance(value, Mapping) and all(isinstance(v, Tensor) for v in value.values()):
        return dict(value)
    raise CheckpointError(f'{path} is not a plain state dict; name the entry that is with "state_dict" in the key map.')


def read_folder_weights(folder: Path, stem: str = "model", pickled_stem: str = "pytorch_model") -> Weights:
    """Return the weights of a Hugging Face folder: one file or shards with an index, safetensors preferred."""
    for name, read in (
        (f"{stem}.safetensors", read_safetensors),
        (f"{pickled_stem}.bin", lambda p: as_weights(read_pickled_tensors(p), p)),
    ):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return read(folder / name)
        if index.is_file():
            merged: Weights = {}
            for shard in sorted(set(read_json(index)["weight_map"].values())):
                if Path(shard).name != shard or not (folder / shard).is_file():
                    raise CheckpointError(f"{index} names the shard {shard}, which is not in {folder}; copy it there.")
                merged.update(read(folder / shard))
            return merged
    raise CheckpointError(f"{folder} holds no {stem}.safetensors or {pickled_stem}.bin; point to a checkpoint folder.")


def strip_prefix(weights: Weights, prefix: str) -> Weights:
    """Return the entries under a prefix, with the prefix removed."""
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


class Taker:
    """Hands out the tensors of a checkpoint one by one and knows which were never asked for."""

    def __init__(self, weights: Weights, where: str) -> None:
        self._weights, self._where, self._used = weights, where, set[str]()

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def take(self, name: str) -> Tensor:
        """Return the float32 tensor of that name."""
        if name not in self._weights:
            raise CheckpointError(f"{self._where} has no tensor {name}; this is not a checkpoint of that family.")
        self._used.add(name)
        return self._weights[name].to(torch.float32)

    def take_linear(self, name: str) -> Tensor:
        """Return a linear weight [d_in, d_out] from its stored form [d_out, d_in]."""
        return self.take(name).t().contiguous()

    def named(self, theirs: str, ours: str) -> Weights:
        """Return weight and bias of a norm under another name."""
        return {f"{ours}.{part}": self.take(f"{theirs}.{part}") for part in ("weight", "bias")}

    def dense(self, theirs: str, ours: str) -> Weights:
        """Return a linear map with its bias under another name, its weight [d_in, d_out]."""
        return {f"{ours}.weight": self.take_linear(f"{theirs}.weight"), f"{ours}.bias": self.take(f"{theirs}.bias")}

    def joined(self, theirs: list[str], ours: str) -> Weights:
        """Return linear maps of one input side by side, as one."""
        return {
            f"{ours}.weight": torch.cat([self.take_linear(f"{name}.weight") for name in theirs], 1),
            f"{ours}.bias": torch.cat([self.take(f"{name}.bias") for name in theirs]),
        }

    def finish(self, dropped: Iterable[str]) -> None:
        """Raise CheckpointError when a tensor was neither taken nor under one of the dropped prefixes."""
        prefixes = tuple(dropped)
        left = sorted(n for n in self._weights if n not in self._used and not n.startswith(prefixes))
        if left:
            names = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
            raise CheckpointError(
                f"{self._where} holds {len(left)} tensor(s) that this model does not use ({names}); "
                "loading without them would give wrong results, so the family or the configuration must be corrected."
            )


def load_strict(module: nn.Module, state: Weights, where: str) -> None:
    """Give a module (on the meta device or not) its tensors; every name and shape must fit."""
    expected = module.state_dict()
    for name, value in state.items():
        if name not in expected:
            raise CheckpointError(f"{where}: {name} has no place in the model; correct the configuration.")
        if expected[name].shape != value.shape:
            raise CheckpointError(
                f"{where}: {name} is {tuple(value.shape)} where the configuration says {tuple(expected[name].shape)}; "
                "the weights and the configuration belong to different models."
            )
    missing = sorted(set(expected) - set(state))
    if missing:
        raise CheckpointError(
            f"{where} lacks {len(missing)} tensor(s), first {missing[0]}; the checkpoint is incomplete."
        )
    module.load_state_dict(state, assign=True)
    module.requires_grad_(False)
