"""The tensors of a number of slots: their shapes, and whether they fit."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.backends.budget import Budget, SlotBytes, check_room
from cellscribe.engine.backends.contract import attended_shapes
from cellscribe.engine.backends.tensorrt.device import Device
from cellscribe.engine.backends.tensorrt.engine import Binding
from cellscribe.engine.backends.tensorrt.homes import build_command
from cellscribe.engine.backends.tensorrt.plan import Plan
from cellscribe.engine.backends.tensorrt.staging import ALIGNED
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.bundle.manifest import PromptRecord
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape
from cellscribe.engine.errors import BundleError, PlanError, RoomError

Shape = tuple[int, ...]
_BYTES = {"float32": 4, "float16": 2, "int64": 8, "int32": 4, "bool": 1}


@dataclass(frozen=True)
class Kept:
    """One tensor that stays for a whole run: its shape and its torch dtype's name."""

    shape: Shape
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * _BYTES[self.dtype]


@dataclass(frozen=True)
class Described:
    """The parts of a manifest that a bundle which writes text has."""

    decoder: DecoderShape
    cross: CrossShape
    prompt: PromptRecord


def described(bundle: Bundle) -> Described:
    """Return them; BundleError for a bundle that only embeds."""
    manifest = bundle.manifest
    if manifest.decoder is None or manifest.cross_attention is None or manifest.prompt is None:
        raise BundleError(f"the bundle {bundle.name} cannot describe cells; choose one with a decoder.")
    return Described(manifest.decoder, manifest.cross_attention, manifest.prompt)


def cache_names(shape: DecoderShape) -> list[str]:
    """Names of the caches in graph order."""
    return [f"{part}.{i}" for i in range(shape.n_layers) for part in ("key", "value")]


def slot_layout(parts: Described, plan: Plan, slots: SlotPlan, rows: int) -> dict[str, Kept]:
    """Return what the step takes and gives for a number of rows, by name; `raw_memory` is what cells brought."""
    shape, cross, recipe = parts.decoder, parts.cross, plan.recipe
    genes = slots.num_genes
    kept = {
        "tokens": Kept((rows, 1), "int64"),
        "hidden": Kept((rows, 0, shape.d_model), "float16"),
        "positions": Kept((rows, 1), "int64"),
        "mask": Kept((rows, 1, recipe.capacity), "bool"),
        "memory_mask": Kept((rows, genes), "bool"),
        "raw_memory": Kept((rows, genes, cross.d_memory), "float16"),
    }
    for name, sizes in attended_shapes(cross).items():
        axes = iter((rows, genes))
        kept[name] = Kept(tuple(next(axes) if size is None else int(size) for size in sizes), "float16")
    for name in cache_names(shape):
        kept[name] = Kept((rows, shape.n_kv_heads, recipe.capacity, shape.d_head), "float16")
    kept["logits"] = Kept((rows, 1, shape.vocab_size), "float32")
    if "evidence" in recipe.outputs:
        kept["evidence"] = Kept((rows, 1, genes), "float32")
    if "attention" in recipe.outputs:
        kept["attention"] = Kept((rows, cross.n_layers, cross.n_heads, 1, genes), "float32")
    return kept


def check_layout(plan: Plan, kept: dict[str, Kept], bindings: dict[str, Binding]) -> None:
    """Compare the manifest's sizes with the plan's, before anything is allocated by its word.

    Raises
    ------
    PlanError
        On the first tensor that differs.
    """
    for name, binding in bindings.items():
        here = kept.get(name.removeprefix("new_"))
        if here is None:
            raise PlanError(f"{plan} has a tensor {name} that this release does not know; build it anew.")
        fits = len(here.shape) == len(binding.shape) and all(
            want in (-1, have) for want, have in zip(binding.shape, here.shape, strict=True)
        )
        if here.dtype != binding.dtype or not fits:
            raise PlanError(
                f"{plan} has {name} as {binding.dtype} {list(binding.shape)} where the manifest says {here.dtype} "
                f"{list(here.shape)}; build it anew."
            )


def check_in_place(plan: Plan, found: dict[str, str], shape: DecoderShape) -> None:
    """Every cache is given to TensorRT as input and as output; anything but an update in place would spoil it."""
    wanted = {f"new_{name}": name for name in cache_names(shape)}
    if found != wanted:
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise PlanError(f"{plan} does not update {odd[0]} in place; build it anew, and report this if it stays so.")


def check_plan(bundle: Bundle, plan: Plan, slots: SlotPlan) -> None:
    """Compare a run with what a plan of a bundle holds.

    Raises
    ------
    RoomError
        For more slots than the plan has; a run can go on with those.
    PlanError
        For longer texts or memories, or outputs that the plan was built without.
    """
    recipe = plan.recipe
    lacking = [
        (what, option, asked, held)
        for what, option, asked, held in (
            ("new tokens", "--max-new-tokens", slots.max_new_tokens, recipe.max_new_tokens),
            ("tokens per cell", "--genes", slots.num_genes, recipe.genes),
            ("slots", "--slots", slots.num_slots, recipe.slots),
        )
        if asked > held
    ]
    lacks_attention = slots.keep_attention and "attention" not in recipe.outputs
    options = [f"{option} {asked}" for _, option, asked, _ in lacking] + ["--attention"] * slots.keep_attention
    command = build_command(bundle, *options, home=plan.folder.parent)
    if lacks_attention:
        raise PlanError(
            f"{plan} was built without the attention of every layer and head; build one with {command}, or leave "
            "--save-attn out."
        )
    for what, _, asked, held in lacking:
        message = f"{plan} holds {held} {what} and {asked} are asked for; ask for fewer, or build one with {command}."
        raise RoomError(message, held) if what == "slots" else PlanError(message)


def staged_bytes(kept: dict[str, Kept], parts: Described, rows: int, batch: int) -> int:
    """Return the bytes of what a prompt of `batch` rows takes and gives besides the slots' own tensors, at most."""
    shape = parts.decoder
    known, capacity = len(parts.prompt.token_ids), kept["mask"].shape[-1]
    each = [one.num_bytes // rows for name, one in kept.items() if name not in cache_names(shape)]
    return batch * (sum(n for n in each if n % ALIGNED) + known * (2 * shape.d_model + 8 + capacity))


def check_memory(kept: dict[str, Kept], parts: Described, fixed_bytes: int, device: Device, num_slots: int) -> None:
    """Raise RoomError when the slots do not fit; it says the bytes needed and how many slots would fit."""
    caches = set(cache_names(parts.decoder))
    attended = {name for name in kept if name in ("memory", "raw_memory") or name.startswith("cross_")}
    seen = {"evidence", "attention"}
    masks = {"mask", "memory_mask"}

    def each(names: set[str]) -> int:
        return sum(kept[name].num_bytes for name in names & set(kept)) // num_slots

    choice = each(set(kept) - caches - attended - seen - masks)
    slot = SlotBytes(each(caches), each(attended), each(masks), choice, each(seen))
    check_room(device.free_bytes(), Budget(0, fixed_bytes, slot, num_slots), device.name)
