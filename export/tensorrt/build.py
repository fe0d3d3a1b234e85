"""Building all plans of a bundle into one folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from cellscribe.engine.backends.tensorrt.backend import plan_file
from cellscribe.engine.backends.tensorrt.homes import graphs_hash, plan_homes, writable_home
from cellscribe.engine.backends.tensorrt.machine import Machine, short_name, this_machine
from cellscribe.engine.backends.tensorrt.plan import Plan, Recipe, capacity_of
from cellscribe.engine.backends.tensorrt.plugins import LIBRARY, load_plugins, plugin_library
from cellscribe.engine.backends.tensorrt.products import ENTERPRISE, RTX, Installed
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, KEYS, MATCH, TEXT, TOWER, Bundle
from cellscribe.engine.errors import PlanError, UsageError
from cellscribe.engine.types import MAX_NEW_TOKENS
from cellscribe.export.tensorrt.causal import check_text_options, text_recipe
from cellscribe.export.tensorrt.folder import matching, place, seal, staging
from cellscribe.export.tensorrt.graph import OPTIONAL_OUTPUTS, prepared
from cellscribe.export.tensorrt.instruct import check_instruct_options, instruct_recipe
from cellscribe.export.tensorrt.network import build_plan
from cellscribe.export.tensorrt.progress import Report, Watcher, interruptible
from cellscribe.export.tensorrt.ranks import rank_recipe
from cellscribe.export.tensorrt.target import Target, choose_product, parse_target

MAX_SLOTS, MAX_GENES = 512, 65535
PROMPT_BATCH = ENCODE_BATCH = 8  # cells per run of a prompt or of the encoder, at most: bounds their scratch memory


@dataclass(frozen=True)
class BuildReport:
    """What a build made: the plan, whether it was there already, and the seconds that each file took.

    `is_found` says that other commands find the plan by themselves, without ``--plans``.
    """

    plan: Plan
    product: str
    reused: bool
    seconds: dict[str, float] = field(default_factory=dict)
    is_found: bool = True

    def lines(self) -> list[str]:
        """Say it in lines for a terminal."""
        size = sum(one.bytes for one in self.plan.files.values())
        first = f"{self.plan.folder}: {self.product}, {size / 1e6:,.1f} MB"
        how = [] if self.is_found else [f"give other commands --plans {self.plan.folder.parent} to use it"]
        if self.reused:
            return [f"{first}; it was there already and is up to date.", *how]
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return [first, f"built in {sum(self.seconds.values()):.1f} s ({parts})", *how]


def build_plans(
    bundle: Bundle,
    target: str,
    *,
    slots: int = 32,
    max_new_tokens: int = 96,
    genes: int | None = None,
    prompt_tokens: int | None = None,
    outputs: tuple[str, ...] = ("evidence",),
    precision: str = "fp16",
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
        ``rtx4090``, ``h100``, "NVIDIA GeForce RTX 4090", ``sm_89`` and the like, or ``this``.
    slots
        Texts in progress, or matched in a run, at most.
    max_new_tokens
        Longest text; the caches hold the prompt and this.
    genes
        Longest memory, ``<cls>`` included; None takes what the bundle's cells have. Of a bundle that follows
        instructions the most genes that a cell expresses, None for 8,192.
    prompt_tokens
        Longest prompt of a bundle that reads cells as sentences, None for 1024 or what its context holds; or longest
        text of one that matches texts with cells, None for 256; or longest prompt of one that follows instructions,
        its cell's positions counted, None for 512.
    outputs
        Optional outputs to keep: ``evidence``, ``attention``.
    precision
        ``fp16``, or ``fp32`` for bundles in fp32 that read cells as sentences.
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
    if bundle.manifest.gpu_problem:
        raise PlanError(bundle.manifest.gpu_problem)
    _check_sizes(bundle, slots, max_new_tokens, outputs)
    _check_genes(bundle, genes)
    if bundle.manifest.instruct is not None:
        check_instruct_options(bundle, precision)
    elif bundle.manifest.ranks is None:
        check_text_options(bundle, genes, prompt_tokens, precision)
    elif precision != "fp16":
        raise UsageError(f"--precision is {precision!r}; plans of bundles that read ranks are fp16, leave it out.")
    machine = machine or this_machine()
    aimed = parse_target(target, machine)
    installed = choose_product(aimed, machine, product)
    if timing_cache is not None and installed.product == RTX:
        raise UsageError("--timing-cache is for TensorRT 11; TensorRT for RTX measures nothing when it builds.")
    recipe = _recipe(bundle, aimed, machine, installed, slots, max_new_tokens, genes, outputs)
    if bundle.manifest.style is not None:
        recipe = text_recipe(bundle, recipe, max_new_tokens, prompt_tokens, precision)
    if bundle.manifest.ranks is not None:
        recipe = rank_recipe(bundle, recipe, genes, prompt_tokens)
    if bundle.manifest.instruct is not None:
        recipe = instruct_recipe(bundle, recipe, max_new_tokens, genes, prompt_tokens)
    home = writable_home(bundle, output)
    is_found = home in plan_homes(bundle)
    if not rebuild and (plan := matching(home, recipe, is_given=output is not None)):
        return BuildReport(plan, str(installed), reused=True, is_found=is_found)
    seconds: dict[str, float] = {}
    with staging(home, recipe.folder_name, is_given=output is not None) as folder:
        for graph in _graphs(bundle):
            seconds[plan_file(graph)] = _build_one(bundle, graph, installed, recipe, folder, timing_cache, progress)
        is_listed = seal(folder, recipe, seconds)
        plan = place(folder, home, recipe, is_given=output is not None)
    return BuildReport(plan, str(installed), reused=False, seconds=seconds, is_found=is_found and is_listed)


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
        plugin, precision = bool(recipe.plugins), recipe.precision
        with prepared(bundle, name, recipe.capacity, plugin=plugin, attention=keep, precision=precision) as graph:
            plan = build_plan(installed, graph, recipe, watcher, timing_cache)
            (folder / plan_file(name)).write_bytes(plan)

    interruptible(work, watcher)
    if progress is not None:
        progress(plan_file(name), 1.0)
    return time.perf_counter() - started


def _graphs(bundle: Bundle) -> list[str]:
    return [name for name in (TOWER, ENCODER, CROSS, DECODER, TEXT, KEYS, MATCH) if name in bundle.manifest.files]


def _recipe(
    bundle: Bundle,
    target: Target,
    machine: Machine,
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
        gpu=short_name(machine.gpu) if installed.product == ENTERPRISE else target.gpu,
        compute_capability=target.compute_capability,
        precision="fp16",
        slots=slots,
        prompt_batch=min(PROMPT_BATCH, slots),
        encode_batch=ENCODE_BATCH,
        prompt_len=prompt_len,
        max_new_tokens=max_new_tokens if prompt else 0,
        capacity=capacity_of(prompt_len, max_new_tokens) if prompt else 0,
        genes=genes or (bundle.manifest.cell_input.num_genes + 1 if bundle.manifest.cells else 0),
        graphs=graphs_hash(bundle),
        outputs=tuple(name for name in OPTIONAL_OUTPUTS if name in outputs) if prompt else (),
        plugins=(LIBRARY,) if with_plugin else (),
    )


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


def _check_genes(bundle: Bundle, genes: int | None) -> None:
    """A cell has each token of the vocabulary once at most."""
    if genes is not None and bundle.manifest.cells is not None:
        most = min(len(bundle.vocabulary.tokens), MAX_GENES)
        if not 1 <= genes <= most:
            raise UsageError(f"genes is {genes}; choose 1 to {most}, the most that a cell of {bundle.name} can have.")
