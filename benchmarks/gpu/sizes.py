"""What is measured: the sizes of a run on a GPU, and tiny ones that only show that everything works."""

from __future__ import annotations

from dataclasses import dataclass

from gpu.roofline import LINGOCELL, Model


@dataclass(frozen=True)
class Sizes:
    """Sizes of all parts.

    `cells` are described at each number of `slots`; `tokens` a text. `copy_bytes`, `product` (rows of a square product)
    are for the ceilings; `repeats` of a timed call, `colds` times the L2 cache is what cold inputs span.
    """

    shape: str
    model: Model
    encoder_heads: int
    slots: tuple[int, ...]
    cells: tuple[int, ...]
    tokens: int
    copy_bytes: int
    product: int
    repeats: int
    colds: int
    max_sets: int
    kernel_slots: tuple[int, ...]
    swept_blocks: tuple[int, ...]  # 0: as the kernel suggests
    few_rows: tuple[int, ...]
    parity_cells: tuple[int, ...]
    encoder_cells: int
    tickets: int
    peer_slots: tuple[int, ...]
    llama_slots: tuple[int, ...]
    profile_slots: tuple[int, ...]
    is_full: bool


FULL = Sizes(
    shape="lingocell-1.1b",
    model=LINGOCELL,
    encoder_heads=8,
    slots=(1, 96, 512, 32, 8),
    cells=(16, 384, 1536, 160, 64),
    tokens=96,
    copy_bytes=4 << 30,
    product=8192,
    repeats=20,
    colds=4,
    max_sets=256,
    kernel_slots=(1, 8, 32, 96, 512),
    swept_blocks=(66, 132, 264, 396, 528),
    few_rows=(1, 2, 4, 8),
    parity_cells=(32, 8, 1),
    encoder_cells=256,
    tickets=12,
    peer_slots=(1, 32, 96),
    llama_slots=(1, 32),
    profile_slots=(1, 96),
    is_full=True,
)

TINY = Sizes(
    shape="lingocell-tiny",
    model=Model(61, 9, 600, 64, 4, 2, 4, 2, 96, 4, 4, 64, 2, 96),
    encoder_heads=4,
    slots=(1, 3),
    cells=(2, 4),
    tokens=24,
    copy_bytes=1 << 20,
    product=64,
    repeats=2,
    colds=0,
    max_sets=2,
    kernel_slots=(1, 2),
    swept_blocks=(2,),
    few_rows=(1, 2),
    parity_cells=(3, 1),
    encoder_cells=4,
    tickets=1,
    peer_slots=(1, 2),
    llama_slots=(1,),
    profile_slots=(1,),
    is_full=False,
)
