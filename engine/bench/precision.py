"""How many bytes a number takes, by the name of a precision."""

from __future__ import annotations

from dataclasses import dataclass

from cellscribe.engine.errors import UsageError


@dataclass(frozen=True)
class Precision:
    """Bytes of a weight as it is read, scales of its block included, of a number of caches, and of a memory's.

    `outer_bytes` are those of a weight outside the decoder's layers, head and encoder, which 4-bit bundles keep in 8
    bits; 0 takes `weight_bytes`.

    `arithmetic` names the matrix rate that bounds its products, `state_arithmetic` that of attention: "fp32", "bf16" or
    "int8".
    """

    name: str
    weight_bytes: float
    state_bytes: float
    memory_bytes: float
    arithmetic: str = "fp32"
    state_arithmetic: str = "fp32"
    outer_bytes: float = 0.0

    def __post_init__(self) -> None:
        if not self.outer_bytes:
            object.__setattr__(self, "outer_bytes", self.weight_bytes)


NO_PRECISION = "-"  # of rows that compute nothing in any of them
_SCALE_BYTES = 2 / 32  # an fp16 scale for every 32 weights

PRECISIONS = {
    one.name: one
    for one in (
        Precision("fp32", 4, 4, 4),
        Precision("fp16", 2, 2, 2),
        Precision("fp16-stored", 2, 4, 4),
        Precision("int8", 1 + _SCALE_BYTES, 4, 1 + _SCALE_BYTES, "int8", "bf16"),
        Precision("int4", 0.5 + _SCALE_BYTES, 4, 1 + _SCALE_BYTES, "int8", "bf16", 1 + _SCALE_BYTES),
    )
}


def precision_named(name: str) -> Precision:
    """Return a precision; UsageError for an unknown name."""
    if name not in PRECISIONS:
        raise UsageError(f"the precision {name!r} is not known; choose one of {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]
