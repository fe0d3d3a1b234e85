"""What is asked about one cell, and what is told of it while it is answered."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from cellscribe.engine.decode.evidence import GeneAxis
from cellscribe.engine.types import Description, Piece, Sampling


@dataclass(frozen=True, eq=False)
class FedCell:
    """A cell as the encoder takes it: genes int64, values float32 and mask bool, each [S], and the genes behind them.

    `failure` says why there is nothing to feed; the arrays are empty then.
    """

    cell_id: str
    genes: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    axis: GeneAxis
    failure: str = ""


@dataclass(frozen=True)
class Begun:
    """A cell got its slot."""

    cell: int
    queue_s: float


@dataclass(frozen=True)
class Token:
    """A token was chosen: what it adds, and its attention to the genes of the cell, float32, where that is wanted."""

    cell: int
    number: int
    piece: Piece
    weights: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class Done:
    """A cell is finished (or has failed); times in seconds, NaN for what did not happen."""

    cell: int
    description: Description
    queue_s: float = float("nan")
    first_token_s: float = float("nan")


@dataclass(frozen=True)
class Lost:
    """Nothing more will come of a cell, and why: the HTTP status that says so, and a sentence."""

    cell: int
    status: int
    message: str


@dataclass(frozen=True, eq=False)
class Answered:
    """A cell of another family is finished (or has failed): what became of it, and how long it waited, in seconds."""

    cell: int
    outcome: Any
    queue_s: float
    latency_s: float


Happening: TypeAlias = Begun | Token | Done | Lost | Answered


class Box(Protocol):
    """Where a request is told what happens to its cells."""

    is_gone: bool  # nobody listens any more

    def deliver(self, happenings: list[Happening]) -> None:
        """Take what happened; called from another thread than the one that listens."""


@dataclass(eq=False)
class Order:
    """One cell of one request.

    `request` is what the orders of a request share; `deadline` is a time of :func:`time.monotonic`. With
    `wants_tokens` every token is told of, with `wants_weights` also its attention to all genes.
    """

    request: Box
    cell: int
    fed: FedCell
    client: str
    deadline: float
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int = 96
    top_genes: int = 10
    wants_tokens: bool = False
    wants_weights: bool = False
    arrived: float = field(default_factory=time.monotonic)
    begun: float = float("nan")
    first_token: float = float("nan")
