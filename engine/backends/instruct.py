"""What every backend of bundles that follow instructions does: read cells, encode prompts, write texts and profiles.

Texts are written in the same slots as those of :mod:`cellscribe.engine.backends.text`, after the start token and over
the encoder's states of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Memory, Slots
from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.shapes import ProfileShape, T5Shape, TowerShape
from cellscribe.engine.errors import BundleError
from cellscribe.engine.instruct.spec import InstructInput

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NOWHERE = 1 << 30  # where the cell of a prompt without one begins


@dataclass(frozen=True, eq=False)
class ExpressedCell:
    """One cell: places of its expressed genes int64 [N], rising, and log1p of their scaled counts float32 [N]."""

    genes: Ints
    values: Floats


@dataclass(frozen=True, eq=False)
class EncoderPrompt:
    """One prompt: its tokens int64 [S], and features [Q, d] that take the place of those from `start` on, if any."""

    tokens: Ints
    start: int = NOWHERE
    features: Any = None


@dataclass(frozen=True, eq=False)
class Profiles:
    """What the decoder of profiles gives for B cells: `rates` and logits of `dropout`, float32 [B, G]."""

    rates: Floats
    dropout: Floats


@dataclass(frozen=True)
class InstructShapes:
    """Sizes of a bundle that follows instructions; `profile` is None where it writes no cells."""

    spec: InstructInput
    t5: T5Shape
    tower: TowerShape
    profile: ProfileShape | None


class InstructSlots(Slots, Protocol):
    """Slots whose decoder's states can be asked for."""

    def states(self, slots: list[int]) -> Floats:
        """Run the last chosen tokens of slots [n]; the decoder's states after them, float32 [n, d]."""
        ...


class InstructBackend(Protocol):
    """One runtime on one device. What it gives for a cell or a prompt does not depend on others that are in work."""

    bundle: Bundle

    @property
    def device(self) -> str:
        """Device, provider and threads in words."""
        ...

    def read_cells(self, cells: Iterable[ExpressedCell]) -> Iterator[Floats]:
        """Return the features of every cell, float32 [Q, d], in the order given."""
        ...

    def encode_prompts(self, prompts: Sequence[EncoderPrompt]) -> list[Memory]:
        """Return the encoder's states of every prompt [S, d]."""
        ...

    def open_instruct_slots(self, plan: TextPlan) -> InstructSlots:
        """Allocate the slots of a run; they are filled with ``Prompted`` that have a memory."""
        ...

    def write_profiles(self, conditions: Floats, latents: Floats, libraries: Floats) -> Profiles:
        """Decode conditions [B, d], latent vectors [B, z] and log library sizes [B, 1], all float32."""
        ...


def instruct_shapes(bundle: Bundle) -> InstructShapes:
    """Return the sizes of a bundle that follows instructions; BundleError for another one."""
    manifest = bundle.manifest
    if manifest.instruct is None or manifest.t5 is None or manifest.tower is None:
        raise BundleError(f"the bundle {bundle.name} follows no instructions; choose one of the family instructcell.")
    return InstructShapes(manifest.instruct, manifest.t5, manifest.tower, manifest.profile)


def require_profiles(bundle: Bundle, shape: ProfileShape | None) -> ProfileShape:
    """Return the sizes of the decoder of profiles; BundleError where there is none."""
    if shape is None:
        raise BundleError(f"the bundle {bundle.name} writes no cells; choose one with a decoder of profiles.")
    return shape


def check_memory(prompt: int, longest: int) -> None:
    """Raise ValueError when the states of a prompt do not fit the slots that were opened."""
    if prompt > longest:
        raise ValueError(f"a prompt of {prompt} tokens in slots for {longest}")
