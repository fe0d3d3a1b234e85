"""Which plans of a bundle there are, and which of them run here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.backends.tensorrt.homes import build_command, plan_homes
from cellscribe.engine.backends.tensorrt.layout import check_plan
from cellscribe.engine.backends.tensorrt.machine import Machine, this_machine
from cellscribe.engine.backends.tensorrt.plan import PLAN_NAME, Plan, plan_problems, read_plan
from cellscribe.engine.backends.tensorrt.products import PRODUCTS, installed_products
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.errors import PlanError, RoomError


def find_plans(bundle: Bundle, output: Path | None = None) -> tuple[Plan, ...]:
    """Return the readable plans of a bundle, those with most slots first."""
    found = [one for one in _read(bundle, output) if isinstance(one, Plan)]
    return tuple(sorted(found, key=lambda p: (-p.recipe.slots, p.folder.name)))


def unreadable_plans(bundle: Bundle, output: Path | None = None) -> tuple[str, ...]:
    """Say which plans cannot be read, one sentence each."""
    return tuple(str(one) for one in _read(bundle, output) if isinstance(one, PlanError))


def _read(bundle: Bundle, output: Path | None) -> Iterator[Plan | PlanError]:
    for home in plan_homes(bundle, output):
        for path in sorted(home.glob(f"*/{PLAN_NAME}")) if home.is_dir() else ():
            if path.parent.name.startswith("."):
                continue
            try:
                yield read_plan(path.parent)
            except PlanError as error:
                yield error


def usable_plans(bundle: Bundle, machine: Machine, output: Path | None = None) -> tuple[Plan, ...]:
    """Return the plans that run here, those with most slots first.

    `output` is a folder of plans that the user named: all in it are trusted. Elsewhere only those count that this user
    built.

    Raises
    ------
    PlanError
        When there is none; it says why.
    """
    plans, unreadable = find_plans(bundle, output), unreadable_plans(bundle, output)
    judged = [(plan, plan_problems(plan, bundle, machine, is_given=output is not None)) for plan in plans]
    if usable := tuple(plan for plan, problems in judged if not problems):
        return usable
    problems = [problems for _, problems in judged] + [(one,) for one in unreadable]
    if problems:
        raise PlanError(_closest(problems))
    where = " or ".join(str(home) for home in plan_homes(bundle, output))
    raise PlanError(
        f"the bundle {bundle.name} has no TensorRT plan in {where}; build one with "
        f"{build_command(bundle, home=output)}."
    )


def choose_plan(bundle: Bundle, machine: Machine, *, output: Path | None = None) -> Plan:
    """Return the plan with most slots that runs here; PlanError, which says why, when none does."""
    return usable_plans(bundle, machine, output)[0]


def pick_plan(bundle: Bundle, plans: Sequence[Plan], slots: SlotPlan) -> Plan:
    """Return the smallest plan that holds a run; one without the attention to genes only where no other does.

    Raises
    ------
    RoomError
        When all that would do have too few slots; it says how many the largest has.
    PlanError
        When none would do.
    """
    refusals: list[PlanError | RoomError] = []
    for plain in (False, True):
        fitting, narrow = [], []
        for plan in (one for one in plans if ("evidence" not in one.recipe.outputs) is plain):
            try:
                check_plan(bundle, plan, slots)
                fitting.append(plan)
            except RoomError as error:
                narrow.append(error)
            except PlanError as error:
                refusals.append(error)
        if fitting:
            return min(fitting, key=_size)
        if narrow:
            raise max(narrow, key=lambda error: error.num_fitting)
    raise refusals[0]


def _size(plan: Plan) -> tuple[int, int, int, int]:
    recipe = plan.recipe
    return recipe.slots, len(recipe.outputs), recipe.capacity, recipe.genes


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
        problems = plan_problems(plan, bundle, machine, is_given=output is not None)
        yield "plan", f"{plan.folder.name}: {_summary(plan)}; {_verdict(plan, problems, machine)}"
    yield from (("plan", one) for one in unreadable_plans(bundle, output))


def _summary(plan: Plan) -> str:
    recipe = plan.recipe
    title = PRODUCTS[recipe.product].title if recipe.product in PRODUCTS else recipe.product
    if recipe.reads_sentences:
        tokens = f"prompts of {recipe.prompt_len} and {recipe.max_new_tokens} new tokens"
        return f"{title} for SM{recipe.compute_capability}, {recipe.precision}, {recipe.slots} slots, {tokens}"
    sizes = f"{recipe.slots} slots, {recipe.max_new_tokens} new tokens, " if recipe.capacity else ""
    return f"{title} for SM{recipe.compute_capability}, {sizes}{recipe.genes} tokens per cell"


def _verdict(plan: Plan, problems: Sequence[str], machine: Machine) -> str:
    """Say it in short: that there is no GPU is said elsewhere, and the plan is named already."""
    if not problems:
        return "it fits this machine."
    left = [one for one in problems if machine.gpu or not one.endswith(f"there is {machine.problem}.")]
    return " ".join("it " + one.removeprefix(f"{plan} ") if one.startswith(str(plan)) else one for one in left) or (
        "it needs such a GPU."
    )
