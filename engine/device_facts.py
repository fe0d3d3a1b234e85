"""What doctor and verify say about devices: the GPUs, which backends can run a bundle, and which of its plans fit."""

from __future__ import annotations

from collections.abc import Iterator

from cellscribe.engine.backends.choose import Choice, examine_backends
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.gpu import find_gpus
from cellscribe.engine.machine import machine_facts


def gpu_facts() -> Iterator[tuple[str, str]]:
    """Say which GPUs the driver's own tool finds."""
    gpus = find_gpus()
    for number, gpu in enumerate(gpus):
        yield f"GPU {number}", gpu.line()
    if not gpus:
        yield "GPU", "nvidia-smi finds none for this process"


def backend_facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Say of every backend whether it can run a bundle here, and why not."""
    for one in examine_backends(bundle):
        yield f"backend {one.name}", one.why or "can run here"


def plan_facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Say which TensorRT plans of a bundle there are, and what keeps each from running here."""
    from cellscribe.engine.backends.tensorrt import plan_facts as facts

    yield from ((label, text) for label, text in facts(bundle) if label != "gpu")


def report_facts(bundle: Bundle, choice: Choice) -> Iterator[tuple[str, str]]:
    """Say what a report about one backend needs: the machine, its GPUs, the bundle, and the plan if there is one."""
    yield from machine_facts()
    yield from gpu_facts()
    yield "bundle", f"{bundle.name} ({bundle.manifest.family}, {bundle.manifest.precision}, {bundle.hash})"
    yield "backend", f"{choice.name}: {choice.backend.device}"
    recipe = getattr(getattr(choice.backend, "plan", None), "recipe", None)
    if recipe is not None:
        yield "plan", f"{choice.backend.plan.folder.name}, recipe {recipe.hash}"  # type: ignore[attr-defined]
