"""What doctor and verify say about devices: the GPUs, which backends can run a bundle, and which of its plans fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cellscribe.engine.backends.choose import Choice, examine_backends, precision_of
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.gpu import find_gpus, has_gpu
from cellscribe.engine.machine import machine_facts


def gpu_facts() -> Iterator[tuple[str, str]]:
    """Say which GPUs the driver's own tool finds."""
    gpus = find_gpus()
    for number, gpu in enumerate(gpus):
        yield f"GPU {number}", gpu.line()
    if not gpus:
        found = "the driver finds one that nvidia-smi does not list" if has_gpu() else "nvidia-smi finds none"
        yield "GPU", f"{found} for this process"


def backend_facts(bundle: Bundle, plans: Path | None = None) -> Iterator[tuple[str, str]]:
    """Say of every backend whether it can run a bundle here, and why not."""
    for one in examine_backends(bundle, plans):
        yield f"backend {one.name}", one.why or "can run here"


def passed_facts(choice: Choice) -> Iterator[tuple[str, str]]:
    """Say why better backends do not run; those for GPUs only where there is one that they could run on."""
    if choice.reasons:
        yield from (("note", one) for one in choice.passed_over(with_gpus=has_gpu()))


def plan_facts(bundle: Bundle, plans: Path | None = None) -> Iterator[tuple[str, str]]:
    """Say which TensorRT plans of a bundle there are, and what keeps each from running here."""
    from cellscribe.engine.backends.tensorrt import plan_facts as facts

    yield from ((label, text) for label, text in facts(bundle, plans) if label != "gpu")


def report_facts(bundle: Bundle, choice: Choice) -> Iterator[tuple[str, str]]:
    """Say what a report about one backend needs: the machine, its GPUs, the bundle, and the plan if there is one."""
    yield from machine_facts()
    yield from gpu_facts()
    yield "bundle", f"{bundle.name} ({bundle.manifest.family}, {bundle.manifest.precision}, {bundle.hash})"
    yield "backend", f"{choice.name}: {choice.backend.device}"
    yield "precision", precision_of(bundle, choice.backend)
    recipe = getattr(getattr(choice.backend, "plan", None), "recipe", None)
    if recipe is not None:
        yield "plan", f"{choice.backend.plan.folder.name}, recipe {recipe.hash}"  # type: ignore[attr-defined]
