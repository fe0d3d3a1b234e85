"""TensorRT plans in a model repository: which of them Triton itself can open."""

from __future__ import annotations

from pathlib import Path

from cellscribe.engine.backends.tensorrt.find import find_plans, unreadable_plans
from cellscribe.engine.backends.tensorrt.homes import build_command, graphs_hash
from cellscribe.engine.backends.tensorrt.plan import Plan
from cellscribe.engine.backends.tensorrt.products import ENTERPRISE
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.integrity import sha256
from cellscribe.engine.errors import PlanError

ENCODER_PLAN = "encoder.plan"


def plans_of(bundle: Bundle, folder: Path) -> tuple[Plan, ...]:
    """Return the plans in a folder that were built from a bundle's graphs, their files checked.

    Raises
    ------
    PlanError
        When there is none, or a file is not what its plan.json says.
    """
    found = tuple(plan for plan in find_plans(bundle, folder) if plan.recipe.graphs == graphs_hash(bundle))
    if not found:
        why = next(iter(unreadable_plans(bundle, folder)), "")
        raise PlanError(
            why
            or f"{folder} has no TensorRT plan of the bundle {bundle.name}; build one with "
            f"{build_command(bundle, home=folder)}, or leave --plans out."
        )
    for plan in found:
        _check(plan)
    return found


def encoder_plan(plans: tuple[Plan, ...]) -> Plan | None:
    """Return the plan whose encoder Triton's TensorRT backend opens: one of TensorRT 11, not of TensorRT for RTX."""
    fitting = (plan for plan in plans if plan.recipe.product == ENTERPRISE.key and ENCODER_PLAN in plan.files)
    return next(fitting, None)


def _check(plan: Plan) -> None:
    for name, expected in plan.files.items():
        path = plan.folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file() or sha256(path) != expected.sha256:
            raise PlanError(f"{path} is not the file that its plan.json speaks of; copy or build the plan again.")
