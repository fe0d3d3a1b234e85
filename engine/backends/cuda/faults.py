"""What goes wrong on a device, in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.backends.budget import Budget, budget, check_room
from cellscribe.engine.bundle.manifest import Manifest
from cellscribe.engine.errors import BackendError, RoomError
from cellscribe.kernels.library import KernelError

_HALF = 2
CELLS_AHEAD = 64  # encoded cells that wait for a slot: two chunks of the encoder
_CHUNK = 32


@contextlib.contextmanager
def running(torch: Any, device: Any) -> Iterator[None]:
    """Work on a device, and turn the errors of torch and of our kernels into sentences."""
    try:
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            yield
    except torch.OutOfMemoryError as error:
        raise RoomError(
            f"{_name(torch, device)} ran out of memory ({str(error).split('. ')[0]}); choose a smaller --batch-size, "
            "or free the device."
        ) from error
    except KernelError as error:
        raise BackendError(
            f"{error} on {_name(torch, device)}; run `cellscribe doctor`, or choose --backend onnxruntime."
        ) from error
    except RuntimeError as error:
        if "CUDA" not in str(error) and "cuBLAS" not in str(error):
            raise
        raise BackendError(
            f"{_name(torch, device)} failed ({str(error).splitlines()[0]}); run `cellscribe doctor`, or choose "
            "--backend onnxruntime."
        ) from error


def require_room(torch: Any, device: Any, manifest: Manifest, plan: SlotPlan, prompt_cells: int) -> None:
    """Raise RoomError, with the bytes needed and the slots that would fit, before anything is allocated."""
    if device.type != "cuda":
        return
    free, _ = torch.cuda.mem_get_info(device)
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    check_room(free + idle, slot_budget(manifest, plan, prompt_cells), _name(torch, device))


def slot_budget(manifest: Manifest, plan: SlotPlan, prompt_cells: int) -> Budget:
    """Return the bytes of the slots (weights are loaded) and of what runs beside them.

    That is the prompts of a few cells (their keys and values in one cross layer, the widest activations of their
    tokens), the cells that wait for a slot, and the chunk of cells that is being encoded.
    """
    counted = budget(replace(manifest, precision="fp16"), plan, with_weights=False, cells_ahead=CELLS_AHEAD + _CHUNK)
    encoder = manifest.encoder_shape
    chunk = _CHUNK * plan.num_genes * _HALF * (7 * encoder.d_model + encoder.d_ffn)
    shape, cross, prompt = manifest.decoder, manifest.cross_attention, manifest.prompt
    if shape is None or cross is None or prompt is None:
        return counted
    memory = plan.num_genes * (cross.d_memory + 4 * cross.n_kv_heads * cross.d_head)
    tokens = len(prompt.token_ids) * (3 * shape.d_ffn + 6 * shape.d_model)
    return replace(counted, fixed=counted.fixed + chunk + prompt_cells * _HALF * (memory + tokens))


def _name(torch: Any, device: Any) -> str:
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "the emulated device"
