"""Which GPU to build for, and which product builds for it here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cellscribe.engine.backends.tensorrt.machine import Machine, short_name
from cellscribe.engine.backends.tensorrt.products import ENTERPRISE, RTX, Installed, require
from cellscribe.engine.errors import PlanError, UsageError
from cellscribe.export.tensorrt.rtx import can_build_for

GPUS = {
    "rtx4090": 89, "rtx4080": 89, "rtx4070": 89, "l4": 89, "l40": 89, "l40s": 89,
    "rtx5090": 120, "rtx5080": 120, "rtx5070": 120, "rtxpro6000": 120,
    "rtx3090": 86, "rtx3080": 86, "a6000": 86, "a40": 86, "a10": 86,
    "t4": 75, "a100": 80, "a30": 80, "h100": 90, "h200": 90, "gh200": 90, "b200": 100,
}  # fmt: skip
KNOWN = (75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121)  # compute capabilities that one of the products runs on
UNNAMED = "gpu"
THIS = "this"


@dataclass(frozen=True)
class Target:
    """A kind of GPU: a name for the plan's folder, and its compute capability (89 is 8.9)."""

    gpu: str
    compute_capability: int


def parse_target(text: str, machine: Machine) -> Target:
    """Read a target: a GPU's name, sm_89, or "this".

    Raises
    ------
    UsageError
        When it names no GPU.
    PlanError
        For "this" on a machine without one.
    """
    name = short_name(text)
    if name == THIS:
        if not machine.gpu:
            raise PlanError(f"--target this needs a GPU, and there is {machine.problem}; name one, as in rtx4090.")
        return Target(short_name(machine.gpu), machine.compute_capability)
    if name in GPUS:
        return Target(name, GPUS[name])
    if match := re.fullmatch(r"sm[_-]?(\d{2,3})", text.strip().lower()):
        if int(match[1]) in KNOWN:
            return Target(UNNAMED, int(match[1]))
        known = ", ".join(f"sm_{one}" for one in KNOWN)
        raise UsageError(f"--target {text!r} is no GPU that TensorRT runs on; choose one of {known}.")
    raise UsageError(f"--target {text!r} is not known; choose {', '.join(GPUS)}, sm_89 or the like, or this.")


def choose_product(target: Target, machine: Machine, product: str = "auto") -> Installed:
    """Return the product that builds for a target here.

    TensorRT 11 measures its kernels, so it builds on the very GPU, and not on another of the same compute capability;
    TensorRT for RTX builds anywhere. Where both can, TensorRT 11 is taken, as it has the plugin.

    Raises
    ------
    PlanError
        When neither can; it says what is missing.
    """
    if product not in ("auto", RTX.key, ENTERPRISE.key):
        raise UsageError(f"--product {product!r} is not known; choose auto, {RTX.key} or {ENTERPRISE.key}.")
    is_named = target.gpu in (UNNAMED, short_name(machine.gpu))
    on_the_gpu = is_named and machine.compute_capability == target.compute_capability
    if product == ENTERPRISE.key or (product == "auto" and on_the_gpu and _is_installed(ENTERPRISE.key)):
        if not on_the_gpu:
            raise PlanError(_not_the_gpu(target, machine))
        return require(ENTERPRISE.key)
    if product == "auto" and not _rtx_covers(target):
        if not on_the_gpu:
            raise PlanError(_not_the_gpu(target, machine))
        return require(ENTERPRISE.key)
    installed = require(RTX.key)
    if not can_build_for(installed.trt, target.compute_capability):
        raise PlanError(
            f"{installed} does not know SM{target.compute_capability}; build with TensorRT 11 on the GPU itself."
        )
    return installed


def _rtx_covers(target: Target) -> bool:
    """Whether TensorRT for RTX is what builds for a target; without it, SM90 alone is known not to be its."""
    if not _is_installed(RTX.key):
        return target.compute_capability != 90
    return can_build_for(require(RTX.key).trt, target.compute_capability)


def _is_installed(key: str) -> bool:
    try:
        require(key)
    except PlanError:
        return False
    return True


def _not_the_gpu(target: Target, machine: Machine) -> str:
    here = f"this machine has {machine}" if machine.gpu else f"here there is {machine.problem}"
    name = "" if target.gpu == UNNAMED else f"{target.gpu}, "
    return (
        f"plans for {name}SM{target.compute_capability} are built by TensorRT 11 on the GPU itself, and {here}; run "
        "`cellscribe build` on a machine with that GPU."
    )
