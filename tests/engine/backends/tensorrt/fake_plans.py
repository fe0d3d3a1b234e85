"""Plan folders for the fake TensorRT: the recipe, profiles and tensors of real ones, and the graph's own file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fake_device import FakeDevice
from fake_tensorrt import fake_module

from cellscribe.engine.backends.tensorrt.backend import TensorRTBackend, plan_file
from cellscribe.engine.backends.tensorrt.homes import graphs_hash, trust
from cellscribe.engine.backends.tensorrt.instruct import TensorRTInstruct
from cellscribe.engine.backends.tensorrt.match import TensorRTMatch
from cellscribe.engine.backends.tensorrt.plan import (
    PLAN_NAME,
    SCHEMA_VERSION,
    Plan,
    Recipe,
    capacity_of,
    read_plan,
    text_capacity,
)
from cellscribe.engine.backends.tensorrt.products import PRODUCTS, Installed
from cellscribe.engine.backends.tensorrt.text import TensorRTText
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, KEYS, MATCH, TEXT, TOWER
from cellscribe.export.tensorrt.graph import OPTIONAL_OUTPUTS, prepared
from cellscribe.export.tensorrt.profiles import profiles, shapes

RECIPE = Recipe(
    product="trt",
    version="11.4.0",
    cuda_major=13,
    gpu="rtx4090",
    compute_capability=89,
    precision="fp16",
    slots=12,
    prompt_batch=4,
    encode_batch=4,
    prompt_len=0,
    max_new_tokens=24,
    capacity=0,
    genes=61,
    graphs="",
)


def make_plan(bundle: Bundle, home: Path, tokens: int = 24, **changes: Any) -> Plan:
    """Write a plan folder, as this user's own."""
    prompt = bundle.manifest.prompt
    prompt_len = len(prompt.token_ids) if prompt else 0
    sizes = {"prompt_len": prompt_len, "max_new_tokens": tokens, "capacity": capacity_of(prompt_len, tokens)}
    recipe = replace(RECIPE, **sizes | {"graphs": graphs_hash(bundle)} | changes)
    folder = home / recipe.folder_name
    folder.mkdir(parents=True)
    for name in (TOWER, ENCODER, CROSS, DECODER, TEXT, KEYS, MATCH):
        if name in bundle.manifest.files:
            (folder / plan_file(name)).write_text(_plan(bundle, name, recipe))
    files = {path.name: asdict(record(path)) for path in folder.glob("*.plan")}
    text = {"schema_version": SCHEMA_VERSION, "recipe": asdict(recipe), "files": files}
    (folder / PLAN_NAME).write_text(json.dumps(text))
    plan = read_plan(folder)
    assert trust(plan.digest)
    return plan


def _plan(bundle: Bundle, name: str, recipe: Recipe) -> str:
    with prepared(bundle, name, recipe.capacity, precision=recipe.precision) as graph:
        kept = {n: v for n, v in graph.outputs.items() if n not in OPTIONAL_OUTPUTS or n in recipe.outputs}
        tensors = {n: (True, v.dtype, v.shape) for n, v in graph.inputs.items()}
        tensors |= {n: (False, v.dtype, v.shape) for n, v in kept.items()}
        ranges = [{n: shapes(n, v, one) for n, v in graph.inputs.items()} for one in profiles(name, recipe)]
        return json.dumps({"onnx": str(graph.path), "profiles": ranges, "tensors": tensors})


def open_fake(bundle: Bundle, *plans: Plan, device: FakeDevice | None = None) -> TensorRTBackend:
    """Open plans with the fake products."""
    device = device or FakeDevice()

    def product(key: str) -> Installed:
        return Installed(PRODUCTS[key], fake_module(device), plans[0].recipe.version, 13)

    return TensorRTBackend(bundle, plans, device, product)


def make_text_plan(bundle: Bundle, home: Path, prompt: int = 100, tokens: int = 32, **changes: Any) -> Plan:
    """Write a plan folder of a bundle without an encoder, as this user's own."""
    sizes = {"prompt_batch": 1, "encode_batch": 0, "prompt_len": prompt, "genes": 0, "outputs": ()}
    changes = sizes | {"capacity": text_capacity(prompt, tokens)} | changes
    return make_plan(bundle, home, tokens, **changes)


def open_fake_text(bundle: Bundle, *plans: Plan, device: FakeDevice | None = None) -> TensorRTText:
    """Open plans of a bundle without an encoder with the fake products."""
    device = device or FakeDevice()

    def product(key: str) -> Installed:
        return Installed(PRODUCTS[key], fake_module(device), plans[0].recipe.version, 13)

    return TensorRTText(bundle, plans, device, product)


def make_match_plan(bundle: Bundle, home: Path, **changes: Any) -> Plan:
    """Write a plan folder of a bundle that reads ranks, as this user's own."""
    sizes = {
        "precision": "fp32", "slots": 4, "prompt_batch": 1, "encode_batch": 8, "prompt_len": 64, "genes": 512,
        "capacity": 0, "outputs": (),
    }  # fmt: skip
    return make_plan(bundle, home, 0, **sizes | changes)


def open_fake_match(bundle: Bundle, *plans: Plan, device: FakeDevice | None = None) -> TensorRTMatch:
    """Open plans of a bundle that reads ranks with the fake products."""
    device = device or FakeDevice()

    def product(key: str) -> Installed:
        return Installed(PRODUCTS[key], fake_module(device), plans[0].recipe.version, 13)

    return TensorRTMatch(bundle, plans, device, product)


def make_instruct_plan(bundle: Bundle, home: Path, tokens: int = 64, **changes: Any) -> Plan:
    """Write a plan folder of a bundle that follows instructions, as this user's own."""
    sizes = {
        "precision": bundle.manifest.precision, "slots": 4, "prompt_batch": 1, "encode_batch": 16, "prompt_len": 128,
        "genes": 500, "capacity": capacity_of(9, tokens), "outputs": (), "follows_instructions": True,
    }  # fmt: skip
    return make_plan(bundle, home, tokens, **sizes | changes)


def open_fake_instruct(bundle: Bundle, *plans: Plan, device: FakeDevice | None = None) -> TensorRTInstruct:
    """Open plans of a bundle that follows instructions with the fake products."""
    device = device or FakeDevice()

    def product(key: str) -> Installed:
        return Installed(PRODUCTS[key], fake_module(device), plans[0].recipe.version, 13)

    return TensorRTInstruct(bundle, plans, device, product)
