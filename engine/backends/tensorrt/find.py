"""Where plans lie, and which of them runs here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cellscribe.engine.backends.tensorrt.machine import Machine, this_machine
from cellscribe.engine.backends.tensorrt.plan import PLAN_NAME, Plan, graphs_hash, plan_problems, read_plan
from cellscribe.engine.backends.tensorrt.products import installed_products
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.errors import PlanError
from cellscribe.engine.packaged import packaged_bundle

PLANS = "plans"


def plan_homes(bundle: Bundle, output: Path | None = None) -> tuple[Path, ...]:
    """Return the folders that may hold plans of a bundle: `output`, the bundle's own, and the user's cache."""
    if output is not None:
        return (output,)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return bundle.folder / PLANS, cache / "cellscribe" / PLANS / graphs_hash(bundle)[:16]


def writable_home(bundle: Bundle, output: Path | None = None) -> Path:
    """Return where a new plan goes: the bundle's own folder.

    The user's cache takes those of a read-only bundle, and of the packaged one, which belongs to the installer.
    """
    homes = plan_homes(bundle, output)
    if len(homes) == 1:
        return homes[0]
    if bundle.folder.resolve() == packaged_bundle().resolve():
        return homes[1]
    own = homes[0] if homes[0].exists() else homes[0].parent
    return homes[0] if os.access(own, os.W_OK) else homes[1]


def find_plans(bundle: Bundle, output: Path | None = None) -> tuple[Plan, ...]:
    """Return the readable plans of a bundle, those with most slots first; unreadable ones are left out."""
    return tuple(sorted(_readable(bundle, output), key=lambda p: (-p.recipe.slots, p.folder.name)))


def _readable(bundle: Bundle, output: Path | None) -> Iterator[Plan]:
    for home in plan_homes(bundle, output):
        for folder in sorted(home.glob(f"*/{PLAN_NAME}")) if home.is_dir() else ():
            if folder.parent.name.startswith("."):
                continue
            try:
                yield read_plan(folder.parent)
            except PlanError:
                continue


def choose_plan(bundle: Bundle, machine: Machine, *, slots: int | None = None, output: Path | None = None) -> Plan:
    """Return the plan that runs here: the smallest with enough slots, or else the largest.

    Raises
    ------
    PlanError
        When there is none, or none fits; the message says why.
    """
    plans = find_plans(bundle, output)
    if not plans:
        where = " or ".join(str(home) for home in plan_homes(bundle, output))
        raise PlanError(
            f"the bundle {bundle.name} has no TensorRT plan in {where}; build one with `cellscribe build "
            f"{bundle.folder} --target this`."
        )
    judged = [(plan, plan_problems(plan, bundle, machine)) for plan in plans]
    usable = [plan for plan, problems in judged if not problems]
    if not usable:
        raise PlanError(_closest([problems for _, problems in judged]))
    enough = [plan for plan in usable if slots is not None and plan.recipe.slots >= slots]
    return enough[-1] if enough else usable[0]


def _closest(problems: list[tuple[str, ...]]) -> str:
    """Say what is wrong with the plan that comes closest."""
    first, others = min(problems, key=len)[0], len(problems) - 1
    if not others:
        return first
    return f"{first.removesuffix('.')} ({others} other plan{'s do' if others > 1 else ' does'} not fit either)."


def plan_facts(bundle: Bundle, output: Path | None = None, machine: Machine | None = None) -> Iterator[tuple[str, str]]:
    """Say for `doctor` what there is: the GPU, the products, and each plan with what keeps it from running."""
    machine = machine or this_machine()
    yield "gpu", str(machine)
    yield "tensorrt", ", ".join(str(one) for one in installed_products()) or "none"
    for plan in find_plans(bundle, output):
        problems = plan_problems(plan, bundle, machine) or ("it fits this machine.",)
        yield "plan", f"{plan.folder.name}: {' '.join(problems)}"
