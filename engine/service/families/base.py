"""What a family does for a service: many threads make cells ready, and the one that has the model answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from anndata import AnnData

from cellscribe.engine.cells import CellSource
from cellscribe.engine.labels import Labelled, Labels
from cellscribe.engine.sentences.frame import PLAIN, Frame
from cellscribe.engine.service.cell_files import CellFile
from cellscribe.engine.text_cells import AskedCells
from cellscribe.engine.types import Sampling

if TYPE_CHECKING:
    from cellscribe.engine.service.families.speaking import Speaker

Tick = Callable[[int, int], None]  # cells done, tokens so far; it may raise, which ends the work


@dataclass(frozen=True)
class Embedding:
    """Vectors are wanted."""


@dataclass(frozen=True)
class Labelling:
    """Labels are wanted: which (None leaves the model free), whether all are scored, and how long a free one may be."""

    labels: Labels | None = None
    scores: bool = False
    max_new_tokens: int = 32


@dataclass(frozen=True)
class Question:
    """An answer to a question in a user's words is wanted; ``{cell}`` in it stands for the cell."""

    text: str
    sampling: Sampling
    max_new_tokens: int


Wish: TypeAlias = Embedding | Labelling | Question


@dataclass(frozen=True)
class CellWish:
    """Cells are to be written; `max_new_tokens` of None is left to the family.

    With `is_drawn` the sampling is what a client asked for, else what c2s does where nothing is said.
    """

    count: int
    cell_type: str | None
    tissue: str | None
    sampling: Sampling
    is_drawn: bool = False
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class TextWork:
    """How texts are written: what batches of them have in common."""

    sampling: Sampling
    max_new_tokens: int
    labels: tuple[str, ...] | None = None
    all_labels: bool = False
    frame: Frame = PLAIN


Work: TypeAlias = Hashable  # what is done to a batch: TextWork, Embedding, Labels to choose from, or a whole order


@dataclass(frozen=True, eq=False)
class Item:
    """One cell (or prompt) that is ready for the model, under the name that keys its draws.

    `failure` says why there is nothing to answer. `prompt_tokens` is how many a user is told of.
    """

    name: str
    payload: Any = None
    failure: str = ""
    prompt_tokens: int = 0


@dataclass(frozen=True)
class ReadyCells:
    """The cells of a request, what is done to them, and what became of their genes."""

    items: list[Item]
    work: Work
    genes: dict[str, object]


@dataclass(frozen=True)
class ReadyOrder:
    """Cells that are to be written: what the model is given for them, and for how many cells they count."""

    items: list[Item]
    work: Work
    asked: AskedCells | None = None


@dataclass(frozen=True, eq=False)
class Written:
    """Cells that were written, what is to be said about them, and what their values are."""

    cells: AnnData
    said: str
    values: str


class Family(Protocol):
    """A bundle of one family on its device.

    All but :meth:`run` may be called from several threads at a time, and none of those asks the model.
    """

    tasks: tuple[str, ...]
    width: int  # numbers of a vector

    @property
    def speaker(self) -> Speaker | None:
        """What texts are written with, where slots stay open for them; they do not pass through :meth:`run` then."""

    def read(self, source: CellSource, rows: Sequence[int], wish: Wish, kept: dict[str, Any]) -> ReadyCells:
        """Make cells ready; `kept` belongs to the source, for what is worked out once.

        Raises
        ------
        InputError, UsageError
            For cells that cannot be read, or a wish that cannot be granted.
        """

    def genes(self, source: CellSource, kept: dict[str, Any]) -> dict[str, object]:
        """Return how many of a source's genes are known, how many not, and a sentence about it."""

    def run(self, work: Work, items: Sequence[Item], tick: Tick) -> list[Any]:
        """Return what becomes of each: an Answer, a vector, scores, or written cells; the model's thread calls it."""

    def labelled(self, wish: Labelling, items: Sequence[Item], found: Sequence[Any]) -> tuple[list[str], Labelled]:
        """Return the status of every cell, and the labels."""

    def order(self, wish: CellWish) -> ReadyOrder:
        """Make an order of cells ready."""

    def written(self, order: ReadyOrder, found: Sequence[Any], like: CellFile) -> Written:
        """Return the cells that came of an order; `like` are real ones."""
