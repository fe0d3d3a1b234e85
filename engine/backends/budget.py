"""How many bytes a run needs on a device, and how many slots fit in what is free."""

from __future__ import annotations

from dataclasses import dataclass

from cellscribe.engine.backends.advice import cpu_backend
from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.bundle.manifest import Manifest
from cellscribe.engine.bundle.shapes import CrossShape
from cellscribe.engine.errors import BundleError, RoomError

_WEIGHTS = (".onnx", ".data")
_FLOAT32, _INT64 = 4, 8


@dataclass(frozen=True)
class SlotBytes:
    """Bytes that one slot takes, by what they hold.

    With e bytes a number of the bundle's precision (2 in fp16, 4 in fp32) and C = prompt + max_new_tokens:
    caches 2·L·K·C·D·e; attended S·m·e (latent) or 2·Lx·K·S·D·e (materialised, over the Lx cross layers); masks C + S;
    choice 4·V (logits) + 16 (token, position); evidence 4·S, and 4·Lx·H·S more where all attention is kept.
    """

    caches: int
    attended: int
    masks: int
    choice: int
    evidence: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.caches + self.attended + self.masks + self.choice + self.evidence


@dataclass(frozen=True)
class Budget:
    """Bytes of a run: `weights`, `fixed` (cells ready for a slot), `slot` for each of `num_slots`."""

    weights: int
    fixed: int
    slot: SlotBytes
    num_slots: int

    @property
    def total(self) -> int:
        """Bytes that all of it takes; what the runtime takes for its own work comes on top."""
        return self.weights + self.fixed + self.num_slots * self.slot.total

    def num_fitting(self, free_bytes: int) -> int:
        """How many slots fit in `free_bytes`, at most those asked for."""
        return min(max((free_bytes - self.weights - self.fixed) // self.slot.total, 0), self.num_slots)


def budget(manifest: Manifest, plan: SlotPlan, *, cells_ahead: int = 0, with_weights: bool = True) -> Budget:
    """Count the bytes of a run.

    Parameters
    ----------
    manifest, plan
        The bundle and the slots; `num_genes` of the plan is S.
    cells_ahead
        Encoded cells (S·m·e bytes each) that wait for a slot on the device.
    with_weights
        Whether the weights are still to be loaded: the graphs, once in the device's memory.

    Raises
    ------
    BundleError
        When the bundle has no decoder.
    """
    if manifest.decoder is None or manifest.cross_attention is None or manifest.prompt is None:
        raise BundleError(f"the bundle {manifest.name} cannot describe cells; choose one with a decoder.")
    cross, size = manifest.cross_attention, 2 if manifest.precision == "fp16" else 4
    weights = sum(record.bytes for name, record in manifest.files.items() if name.endswith(_WEIGHTS))
    return Budget(
        weights=weights if with_weights else 0,
        fixed=cells_ahead * plan.num_genes * cross.d_memory * size,
        slot=_slot_bytes(manifest, plan, size),
        num_slots=plan.num_slots,
    )


def text_budget(manifest: Manifest, num_slots: int, capacity: int, precision: str = "") -> Budget:
    """Count the bytes of a run without an encoder whose weights are loaded; `capacity` are the positions of a slot.

    What all prompts begin with takes the caches of one slot more. `precision` is the caches', if not the bundle's.
    """
    shape, size = manifest.decoder, 2 if (precision or manifest.precision) == "fp16" else 4
    if shape is None:
        raise BundleError(f"the bundle {manifest.name} writes no text; choose one with a decoder.")
    slot = SlotBytes(
        caches=2 * shape.n_layers * shape.n_kv_heads * capacity * shape.d_head * size,
        attended=0,
        masks=2 * capacity,
        choice=_FLOAT32 * shape.vocab_size + 2 * _INT64,
        evidence=0,
    )
    return Budget(weights=0, fixed=slot.caches, slot=slot, num_slots=num_slots)


def check_room(free_bytes: int, needed: Budget, where: str) -> None:
    """Raise RoomError when a run does not fit in the free memory of a device, named by `where`."""
    if needed.total <= free_bytes:
        return
    fitting = needed.num_fitting(free_bytes)
    mend = (
        f"{fitting} would fit, so choose --batch-size {fitting} (batch_size={fitting}) or less."
        if fitting
        else f"not even one fits, so free the device or use --backend {cpu_backend()}."
    )
    slots = f"{needed.num_slots} slot{'' if needed.num_slots == 1 else 's'}"
    raise RoomError(
        f"{where} has {gigabytes(free_bytes)} free and {slots} need {gigabytes(needed.total)} "
        f"({gigabytes(needed.total - needed.num_slots * needed.slot.total)} of it once, "
        f"{gigabytes(needed.slot.total)} a slot); {mend}",
        fitting,
    )


def gigabytes(number: int) -> str:
    """Write bytes so that a user can compare them: "2.34 GB", "12.3 MB"."""
    return f"{number / 1e9:,.2f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def _slot_bytes(manifest: Manifest, plan: SlotPlan, size: int) -> SlotBytes:
    shape, cross, prompt = manifest.decoder, manifest.cross_attention, manifest.prompt
    assert shape is not None
    assert cross is not None
    assert prompt is not None
    genes, capacity = plan.num_genes, len(prompt.token_ids) + plan.max_new_tokens
    every_head = _FLOAT32 * cross.n_layers * cross.n_heads * genes
    return SlotBytes(
        caches=2 * shape.n_layers * shape.n_kv_heads * capacity * shape.d_head * size,
        attended=_attended(cross, genes) * size,
        masks=capacity + genes,
        choice=_FLOAT32 * shape.vocab_size + 2 * _INT64,
        evidence=_FLOAT32 * genes + (every_head if plan.keep_attention else 0),
    )


def _attended(cross: CrossShape, genes: int) -> int:
    if cross.form == "latent":
        return genes * cross.d_memory
    return 2 * cross.n_layers * cross.n_kv_heads * genes * cross.d_head
