"""Building all plans of a bundle into one folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cellscribe.engine.backends.tensorrt.backend import plan_file
from cellscribe.engine.backends.tensorrt.find import writable_home
from cellscribe.engine.backends.tensorrt.machine import Machine, this_machine
from cellscribe.engine.backends.tensorrt.plan import PLAN_NAME, SCHEMA_VERSION, Plan, Recipe, graphs_hash, read_plan
from cellscribe.engine.backends.tensorrt.plugins import LIBRARY, load_plugins, plugin_library
from cellscribe.engine.backends.tensorrt.products import RTX, Installed
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, Bundle
from cellscribe.engine.bundle.manifest import FileRecord
from cellscribe.engine.errors import OutputError, PlanError, UsageError
from cellscribe.engine.types import MAX_NEW_TOKENS
from cellscribe.export.tensorrt.graph import OPTIONAL_OUTPUTS, prepared
from cellscribe.export.tensorrt.network import build_plan
from cellscribe.export.tensorrt.progress import Report, Watcher, interruptible
from cellscribe.export.tensorrt.target import Target, choose_product, parse_target

MAX_SLOTS = 512
PROMPT_BATCH = ENCODE_BATCH = 8  # cells per run of a prompt or of the encoder, at most: bounds their scratch memory


@dataclass(frozen=True)
class BuildReport:
    """What a build made: the plan, whether it was there already, and the seconds that each file took."""

    plan: Plan
    product: str
    reused: bool
    seconds: dict[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Say it in lines for a terminal."""
        size = sum(one.bytes for one in self.plan.files.values())
        first = f"{self.plan.folder}: {self.product}, {size / 1e6:,.1f} MB"
        if self.reused:
            return [f"{first}; it was there already and is up to date."]
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return [first, f"built in {sum(self.seconds.values()):.1f} s ({parts})"]


def build_plans(
    bundle: Bundle,
    target: str,
    *,
    slots: int = 32,
    max_new_tokens: int = 96,
    genes: int | None = None,
    outputs: tuple[str, ...] = ("evidence",),
    product: str = "auto",
    timing_cache: Path | None = None,
    output: Path | None = None,
    rebuild: bool = False,
    progress: Report | None = None,
    machine: Machine | None = None,
) -> BuildReport:
    """Build the plans of a bundle for one kind of GPU, unless they are there.

    Parameters
    ----------
    target
        ``rtx4090``, ``h100``, ``h200``, ``sm_89`` and the like, or ``this``.
    slots
        Texts in progress at a time, at most.
    max_new_tokens
        Longest text; the caches hold the prompt and this.
    genes
        Longest memory, ``<cls>`` included; None takes what the bundle's cells have.
    outputs
        Optional outputs to keep: ``evidence``, ``attention``.
    product
        ``rtx``, ``trt`` (TensorRT 11), or ``auto``.
    timing_cache
        File of measurements, for TensorRT 11 alone.
    output
        Folder for plans; None takes the bundle's own, or the user's cache where that one is read-only.
    rebuild
        Build even where a matching plan is there.

    Raises
    ------
    PlanError
        When it cannot be built here; it says why.
    UsageError
        For a size out of range.
    OutputError
        When the folder cannot be written.
    """
    _check_sizes(bundle, slots, max_new_tokens, outputs)
    machine = machine or this_machine()
    aimed = parse_target(target, machine)
    installed = choose_product(aimed, machine, product)
    if timing_cache is not None and installed.product == RTX:
        raise UsageError("--timing-cache is for TensorRT 11; TensorRT for RTX measures nothing when it builds.")
    recipe = _recipe(bundle, aimed, installed, slots, max_new_tokens, genes, outputs)
    home = writable_home(bundle, output)
    if not rebuild and (plan := _matching(home, recipe)):
        return BuildReport(plan, str(installed), reused=True)
    seconds: dict[str, float] = {}
    with _staging(home, recipe.folder_name) as folder:
        for graph in _graphs(bundle):
            seconds[plan_file(graph)] = _build_one(bundle, graph, installed, recipe, folder, timing_cache, progress)
        _seal(folder, recipe, seconds)
    return BuildReport(read_plan(home / recipe.folder_name), str(installed), reused=False, seconds=seconds)


def _build_one(
    bundle: Bundle,
    name: str,
    installed: Installed,
    recipe: Recipe,
    folder: Path,
    timing_cache: Path | None,
    progress: Report | None,
) -> float:
    """Build one graph beside this thread, and return the seconds that it took."""
    started = time.perf_counter()
    watcher = Watcher(None if progress is None else lambda share: progress(plan_file(name), share))

    def work() -> None:
        load_plugins(installed, recipe.plugins)
        keep = "attention" in recipe.outputs
        with prepared(bundle, name, recipe.capacity, plugin=bool(recipe.plugins), attention=keep) as graph:
            plan = build_plan(installed, graph, recipe, watcher, timing_cache)
            (folder / plan_file(name)).write_bytes(plan)

    interruptible(work, watcher)
    if progress is not None:
        progress(plan_file(name), 1.0)
    return time.perf_counter() - started


def _graphs(bundle: Bundle) -> list[str]:
    return [name for name in (ENCODER, CROSS, DECODER) if name in bundle.manifest.files]


def _recipe(
    bundle: Bundle,
    target: Target,
    installed: Installed,
    slots: int,
    max_new_tokens: int,
    genes: int | None,
    outputs: tuple[str, ...],
) -> Recipe:
    prompt = bundle.manifest.prompt
    prompt_len = len(prompt.token_ids) if prompt else 0
    with_plugin = installed.product != RTX and plugin_library() is not None
    return Recipe(
        product=installed.product.key,
        version=installed.version,
        cuda_major=installed.cuda_major,
        gpu=target.gpu,
        compute_capability=target.compute_capability,
        precision="fp16",
        slots=slots,
        prompt_batch=min(PROMPT_BATCH, slots),
        encode_batch=ENCODE_BATCH,
        prompt_len=prompt_len,
        capacity=prompt_len + max_new_tokens if prompt else 0,
        genes=genes or bundle.manifest.cells.num_genes + 1,
        graphs=graphs_hash(bundle),
        outputs=tuple(name for name in OPTIONAL_OUTPUTS if name in outputs) if prompt else (),
        plugins=(LIBRARY,) if with_plugin else (),
    )


def _matching(home: Path, recipe: Recipe) -> Plan | None:
    """Return the plan that is there already, if it is whole and was made by the same recipe."""
    folder = home / recipe.folder_name
    if not (folder / PLAN_NAME).is_file():
        return None
    try:
        plan = read_plan(folder)
        whole = all(record(folder / name) == expected for name, expected in plan.files.items())
    except (PlanError, OSError):
        return None
    return plan if whole and plan.recipe.hash == recipe.hash else None


def _check_sizes(bundle: Bundle, slots: int, max_new_tokens: int, outputs: tuple[str, ...]) -> None:
    if not 1 <= slots <= MAX_SLOTS:
        raise UsageError(f"slots is {slots}; choose 1 to {MAX_SLOTS}.")
    if not 1 <= max_new_tokens <= MAX_NEW_TOKENS:
        raise UsageError(f"max_new_tokens is {max_new_tokens}; choose 1 to {MAX_NEW_TOKENS}.")
    if unknown := [name for name in outputs if name not in OPTIONAL_OUTPUTS]:
        raise UsageError(f"output {unknown[0]!r} is not known; choose {' or '.join(OPTIONAL_OUTPUTS)}.")
    shape, prompt = bundle.manifest.decoder, bundle.manifest.prompt
    if shape and prompt and len(prompt.token_ids) + max_new_tokens > shape.max_positions:
        raise UsageError(
            f"the bundle {bundle.name} has {shape.max_positions} positions, too few for a prompt of "
            f"{len(prompt.token_ids)} and {max_new_tokens} new tokens; choose fewer."
        )


def _seal(folder: Path, recipe: Recipe, seconds: dict[str, float]) -> None:
    files: dict[str, FileRecord] = {path.name: record(path) for path in sorted(folder.glob("*.plan"))}
    text: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "recipe": asdict(recipe),
        "recipe_hash": recipe.hash,
        "files": {name: asdict(one) for name, one in files.items()},
        "build_seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
    (folder / PLAN_NAME).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _staging(home: Path, name: str) -> Iterator[Path]:
    """Build in a temporary folder beside the target, and put it in place when all is done."""
    target = home / name
    try:
        home.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
    except OSError as error:
        raise OutputError(f"{home} cannot be written ({error.strerror}); choose a folder with --output.") from error
    try:
        yield staging
        staging.chmod(0o755)
        if target.exists():
            os.rename(target, staging / ".stale")
            shutil.rmtree(staging / ".stale")
        os.rename(staging, target)
    except OSError as error:
        raise OutputError(f"{target} could not be written ({error.strerror}); free the space first.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
