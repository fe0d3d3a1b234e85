"""A plan folder: what it was made from, and whether it can run here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cellscribe.engine.backends.tensorrt.homes import build_command, graphs_hash, is_trusted
from cellscribe.engine.backends.tensorrt.machine import Machine, short_name
from cellscribe.engine.backends.tensorrt.plugins import plugin_library
from cellscribe.engine.backends.tensorrt.products import ENTERPRISE, PRODUCTS, require
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.bundle.manifest import FileRecord
from cellscribe.engine.errors import PlanError

PLAN_NAME, SCHEMA_VERSION = "plan.json", 2
REVISION = 1  # of the builder; raised when the same recipe gives another plan
STEP, PROMPT = 0, 1  # the decoder's two profiles
LARGEST_PIECE, SMALLEST_PIECE = 512, 16  # tokens of a prompt in one run
REBUILD = "build it anew with `cellscribe build`"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is in a plan.

    `product` is a key of :data:`PRODUCTS`; `gpu` is a name for people, except for TensorRT 11, whose plans are measured
    on one kind of GPU; `graphs` is the hash of the bundle's ONNX files. `capacity` is the fixed length of the caches
    (:func:`capacity_of`), `genes` the longest memory; a step runs up to `slots` rows, a prompt up to `prompt_batch` and
    the encoder up to `encode_batch`. `outputs` are the optional ones that were kept.

    A bundle that follows instructions has as `genes` the most that a cell expresses, and as `prompt_len` its longest
    prompt. A bundle that reads cells as sentences has `genes` and `encode_batch` 0, and `prompt_len` is its longest
    prompt: one runs in pieces (:func:`piece_sizes`), a row at a time.
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
    max_new_tokens: int
    capacity: int
    genes: int
    graphs: str
    outputs: tuple[str, ...] = ("evidence",)
    plugins: tuple[str, ...] = ()
    revision: int = REVISION
    follows_instructions: bool = False

    @property
    def reads_sentences(self) -> bool:
        """Whether it is of a decoder without an encoder."""
        return not self.genes

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """Name of the plan's folder: sizes for people, and the start of the hash, so that no recipe takes another's."""
        extra = f"-t{self.max_new_tokens}" if self.capacity else ""
        extra += f"-p{self.prompt_len}" if self.reads_sentences else f"-g{self.genes}"
        extra += "-attention" if "attention" in self.outputs else ""
        is_plain = self.capacity and not self.reads_sentences and "evidence" not in self.outputs
        extra += "-plain" if is_plain else ""
        extra += f"-cu{self.cuda_major}" if self.cuda_major else ""
        return (
            f"{self.gpu}-sm{self.compute_capability}-{self.product}{self.version}-{self.precision}-b{self.slots}{extra}"
            f"-{self.hash[:8]}"
        )


def capacity_of(prompt_len: int, max_new_tokens: int) -> int:
    """Return the length of caches that hold a prompt and a text: a multiple of 8, as fused attention wants of masks."""
    return -(-(prompt_len + max_new_tokens) // 8) * 8


def text_capacity(prompt_len: int, max_new_tokens: int) -> int:
    """Return the length of caches for prompts of their own: a piece of any size may end behind what it holds.

    A multiple of 16, so that every row of a cache whose heads are multiples of 8 wide lies at an aligned address.
    """
    return -(-(prompt_len + max_new_tokens + SMALLEST_PIECE) // 16) * 16


def piece_sizes(capacity: int) -> tuple[int, ...]:
    """Return the tokens that a run of a prompt may take, falling: powers of two, so that few kernels are compiled."""
    largest = min(capacity, LARGEST_PIECE).bit_length()
    return tuple(1 << bit for bit in reversed(range(SMALLEST_PIECE.bit_length() - 1, largest)))


@dataclass(frozen=True)
class Plan:
    """A plan folder that was read: its recipe, its files, and the hash of its plan.json (`digest`)."""

    folder: Path
    recipe: Recipe
    files: dict[str, FileRecord] = field(default_factory=dict)
    digest: str = ""

    def __str__(self) -> str:
        return f"the plan {self.folder.name}"


def read_plan(folder: Path) -> Plan:
    """Read the recipe of a plan folder.

    Raises
    ------
    PlanError
        When it is missing, damaged or of another release.
    """
    path = folder / PLAN_NAME
    try:
        blob = path.read_bytes()
        raw = json.loads(blob.decode("utf-8"))
        if raw.get("schema_version") != SCHEMA_VERSION:
            raise PlanError(f"{path} has schema version {raw.get('schema_version')}, not {SCHEMA_VERSION}; {REBUILD}.")
        files = {str(name): FileRecord(int(one["bytes"]), str(one["sha256"])) for name, one in raw["files"].items()}
        return Plan(folder, _recipe(raw["recipe"]), files, hashlib.sha256(blob).hexdigest())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"{path} cannot be read ({type(error).__name__}: {error}); {REBUILD}.") from error


def _recipe(raw: dict[str, Any]) -> Recipe:
    if set(raw) != {f.name for f in fields(Recipe)}:
        raise ValueError("the recipe has other entries than this release writes")
    lists = {name: tuple(map(str, raw[name])) for name in ("outputs", "plugins")}
    whole = [f.name for f in fields(Recipe) if f.type == "int"]
    if not all(isinstance(raw[name], int) and 0 <= raw[name] < 2**31 for name in whole):
        raise ValueError("the recipe has a size that is not a whole number")
    return Recipe(**{**raw, **lists})


def plan_problems(plan: Plan, bundle: Bundle, machine: Machine, *, is_given: bool = False) -> tuple[str, ...]:
    """Say why a plan cannot run here, one sentence each; none when it can.

    `is_given` means that the user named its folder; any other plan must be one that this user built.
    """
    rebuild = f"build it anew with {build_command(bundle, home=plan.folder.parent)}"
    problems = [*_file_problems(plan, rebuild), *_bundle_problems(plan, bundle, rebuild)]
    if not is_given and not is_trusted(plan.digest):
        problems.append(
            f"{plan} was not built by this user, and plans are native code; {rebuild}, or give --plans "
            f"{plan.folder.parent} if you trust it."
        )
    return (*problems, *_product_problems(plan, rebuild), *_machine_problems(plan, machine, rebuild))


def _file_problems(plan: Plan, rebuild: str) -> Iterator[str]:
    for name, expected in plan.files.items():
        path = plan.folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            yield f"{path} is missing or not a plain file; {rebuild}."
        elif path.stat().st_size != expected.bytes:
            yield f"{path} has {path.stat().st_size} bytes where its recipe says {expected.bytes}; {rebuild}."


def _bundle_problems(plan: Plan, bundle: Bundle, rebuild: str) -> Iterator[str]:
    if plan.recipe.graphs != graphs_hash(bundle):
        yield f"{plan} was built from other graphs than those of the bundle {bundle.name}; {rebuild}."
    elif plan.recipe.revision != REVISION:
        yield f"{plan} was built by another release; {rebuild}."


def _product_problems(plan: Plan, rebuild: str) -> Iterator[str]:
    recipe = plan.recipe
    if recipe.product not in PRODUCTS:
        yield f"{plan} is for a product {recipe.product!r} that this release does not know; {rebuild}."
        return
    title = PRODUCTS[recipe.product].title
    try:
        found = require(recipe.product)
        if found.version != recipe.version:
            yield f"{plan} was built by {title} {recipe.version} and {found.version} is installed; {rebuild}."
        elif recipe.cuda_major and found.cuda_major and found.cuda_major != recipe.cuda_major:
            yield (
                f"{plan} was built by {title} for CUDA {recipe.cuda_major} and the one for CUDA {found.cuda_major} is "
                f"installed; {rebuild}."
            )
    except PlanError as error:
        yield f"{plan} needs {title} {recipe.version}: {error}"
    if recipe.plugins and plugin_library() is None:
        yield f"{plan} needs the plugin {recipe.plugins[0]}, which is missing; install cellscribe with its kernels."


def _machine_problems(plan: Plan, machine: Machine, rebuild: str) -> Iterator[str]:
    recipe = plan.recipe
    if not machine.gpu:
        yield f"{plan} needs a GPU of SM{recipe.compute_capability}, and there is {machine.problem}."
        return
    if machine.compute_capability != recipe.compute_capability:
        yield (
            f"{plan} is for GPUs of SM{recipe.compute_capability} and the {machine.gpu} is "
            f"SM{machine.compute_capability}; {rebuild.replace('it anew', 'one')}."
        )
    elif recipe.product == ENTERPRISE.key and recipe.gpu != short_name(machine.gpu):
        yield f"{plan} was measured on another GPU ({recipe.gpu}) than the {machine.gpu}; {rebuild}."
    if recipe.cuda_major and machine.cuda[0] < recipe.cuda_major:
        yield (
            f"{plan} needs a driver for CUDA {recipe.cuda_major}, and this one is for CUDA "
            f"{machine.cuda[0]}.{machine.cuda[1]}; update the NVIDIA driver."
        )
