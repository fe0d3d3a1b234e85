"""A plan folder: what it was made from, and whether it can run here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cellscribe.engine.backends.tensorrt.machine import Machine
from cellscribe.engine.backends.tensorrt.plugins import plugin_library
from cellscribe.engine.backends.tensorrt.products import PRODUCTS, require
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.bundle.manifest import FileRecord
from cellscribe.engine.errors import PlanError

PLAN_NAME, SCHEMA_VERSION = "plan.json", 1
STEP, PROMPT = 0, 1  # the decoder's two profiles
REBUILD = "build it anew with `cellscribe build`"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is in a plan.

    `product` is a key of :data:`PRODUCTS`, `gpu` a name for people; `graphs` is the hash of the bundle's ONNX files.
    `capacity` is the fixed length of the caches, `genes` the longest memory; a step runs up to `slots` rows, a prompt
    up to `prompt_batch` and the encoder up to `encode_batch`. `outputs` are the optional ones that were kept.
    """

    product: str
    version: str
    cuda_major: int | None
    gpu: str
    compute_capability: int
    precision: str
    slots: int
    prompt_batch: int
    encode_batch: int
    prompt_len: int
    capacity: int
    genes: int
    graphs: str
    outputs: tuple[str, ...] = ("evidence",)
    plugins: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """Name of the plan's folder."""
        extra = "-attention" if "attention" in self.outputs else ""
        extra += "" if "evidence" in self.outputs or not self.capacity else "-plain"
        return (
            f"{self.gpu}-sm{self.compute_capability}-{self.product}{self.version}-{self.precision}-b{self.slots}{extra}"
        )

    @property
    def max_new_tokens(self) -> int:
        """Longest text that the caches hold."""
        return self.capacity - self.prompt_len


@dataclass(frozen=True)
class Plan:
    """A plan folder that was read: its recipe and its files."""

    folder: Path
    recipe: Recipe
    files: dict[str, FileRecord] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"the plan {self.folder.name}"


def graphs_hash(bundle: Bundle) -> str:
    """Return one hash of a bundle's graphs and weights, from the hashes that its manifest gives."""
    named = {n: f.sha256 for n, f in bundle.manifest.files.items() if n.endswith((".onnx", ".data"))}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def read_plan(folder: Path) -> Plan:
    """Read the recipe of a plan folder.

    Raises
    ------
    PlanError
        When it is missing, damaged or of another release.
    """
    path = folder / PLAN_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("schema_version") != SCHEMA_VERSION:
            raise PlanError(f"{path} has schema version {raw.get('schema_version')}, not {SCHEMA_VERSION}; {REBUILD}.")
        files = {str(name): FileRecord(int(one["bytes"]), str(one["sha256"])) for name, one in raw["files"].items()}
        return Plan(folder, _recipe(raw["recipe"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"{path} cannot be read ({type(error).__name__}: {error}); {REBUILD}.") from error


def _recipe(raw: dict[str, Any]) -> Recipe:
    if set(raw) != {f.name for f in fields(Recipe)}:
        raise ValueError("the recipe has other entries than this release writes")
    lists = {name: tuple(map(str, raw[name])) for name in ("outputs", "plugins")}
    whole = ("compute_capability", "slots", "prompt_batch", "encode_batch", "prompt_len", "capacity", "genes")
    if not all(isinstance(raw[name], int) and 0 <= raw[name] < 2**31 for name in whole):
        raise ValueError("the recipe has a size that is not a whole number")
    return Recipe(**{**raw, **lists})


def plan_problems(plan: Plan, bundle: Bundle, machine: Machine) -> tuple[str, ...]:
    """Say why a plan cannot run here, one sentence each; none when it can."""
    return (*_file_problems(plan), *_bundle_problems(plan, bundle), *_machine_problems(plan, machine))


def _file_problems(plan: Plan) -> Iterator[str]:
    for name, expected in plan.files.items():
        path = plan.folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            yield f"{path} is missing or not a plain file; {REBUILD}."
        elif path.stat().st_size != expected.bytes:
            yield f"{path} has {path.stat().st_size} bytes where its recipe says {expected.bytes}; {REBUILD}."


def _bundle_problems(plan: Plan, bundle: Bundle) -> Iterator[str]:
    if plan.recipe.graphs != graphs_hash(bundle):
        yield f"{plan} was built from other graphs than those of the bundle {bundle.name}; {REBUILD}."


def _machine_problems(plan: Plan, machine: Machine) -> Iterator[str]:
    recipe = plan.recipe
    if recipe.product not in PRODUCTS:
        yield f"{plan} is for a product {recipe.product!r} that this release does not know; {REBUILD}."
        return
    title = PRODUCTS[recipe.product].title
    try:
        found = require(recipe.product).version
        if found != recipe.version:
            yield f"{plan} was built by {title} {recipe.version} and {found} is installed; {REBUILD}."
    except PlanError as error:
        yield f"{plan} needs {title} {recipe.version}: {error}"
    if recipe.plugins and plugin_library() is None:
        yield f"{plan} needs the plugin {recipe.plugins[0]}, which is missing; install cellscribe with its kernels."
    if not machine.gpu:
        yield f"{plan} needs a GPU of SM{recipe.compute_capability}, and there is {machine.problem}."
        return
    if machine.compute_capability != recipe.compute_capability:
        yield (
            f"{plan} is for GPUs of SM{recipe.compute_capability} and the {machine.gpu} is "
            f"SM{machine.compute_capability}; build one with `cellscribe build --target this`."
        )
    if recipe.cuda_major and machine.cuda[0] < recipe.cuda_major:
        yield (
            f"{plan} needs a driver for CUDA {recipe.cuda_major}, and this one is for CUDA "
            f"{machine.cuda[0]}.{machine.cuda[1]}; update the NVIDIA driver."
        )
