"""TensorRT, both products with one module: plans that were built ahead, run in place."""

from cellscribe.engine.backends.tensorrt.backend import TensorRTBackend, open_tensorrt
from cellscribe.engine.backends.tensorrt.find import choose_plan, find_plans, plan_facts, usable_plans
from cellscribe.engine.backends.tensorrt.machine import Machine, this_machine
from cellscribe.engine.backends.tensorrt.plan import Plan, Recipe, plan_problems, read_plan

__all__ = [
    "Machine",
    "Plan",
    "Recipe",
    "TensorRTBackend",
    "choose_plan",
    "find_plans",
    "open_tensorrt",
    "plan_facts",
    "plan_problems",
    "read_plan",
    "this_machine",
    "usable_plans",
]
