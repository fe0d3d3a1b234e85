"""An engine that takes part: an opened backend, what it costs, and the real cells it writes about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Backend, Encoded, Memory, SlotPlan
from cellscribe.engine.bench.cost import Cost
from cellscribe.engine.bench.row import Row, Unit
from cellscribe.engine.bench.work import Work
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.decode.scheduler import Request
from cellscribe.engine.types import Sampling


@dataclass(frozen=True, eq=False)
class Contender:
    """An engine behind the protocol of backends.

    Parameters
    ----------
    who
        Its name in the tables.
    bundle, backend
        What it runs, and what runs it; already opened.
    cells, cells_file
        Real cells, and the file they are from; where more texts than cells are wanted, they are written about again
        under other keys.
    precision
        One of :data:`cellscribe.engine.bench.precision.PRECISIONS`.
    threads
        CPU threads; 0 where the CPU does not compute, and then the CPU's roofline does not judge it.
    cost
        What its work cannot do without.
    """

    who: str
    bundle: Bundle
    backend: Backend
    cells: TokenBatch
    cells_file: Path
    precision: str
    threads: int
    cost: Cost

    @property
    def prompt_len(self) -> int:
        """Tokens of the prompt P."""
        return self.cost.prompt_len

    @property
    def max_positions(self) -> int:
        """Tokens that prompt and text may have together."""
        return self.cost.decoder.max_positions if self.cost.decoder else 0

    @property
    def longest_memory(self) -> int:
        """Length S of the cells' memories."""
        return int(self.cells.mask.shape[1])

    @cached_property
    def encoded(self) -> Encoded:
        """The cells' memories, encoded once."""
        return self.backend.encode(self.cells)

    def memory(self, index: int, memory_len: int) -> tuple[Memory, npt.NDArray[np.bool_]]:
        """Return the first `memory_len` rows of a cell's memory, with their mask."""
        at = index % self.cells.n_cells
        return self.encoded.memory[at][:memory_len], self.cells.mask[at][:memory_len]

    def requests(self, count: int, memory_len: int, new_tokens: tuple[int, ...] = ()) -> Iterator[Request]:
        """Yield requests for `count` texts; their lengths are `new_tokens` [count] where given."""
        for index in range(count):
            memory, mask = self.memory(index, memory_len)
            yield Request(index, index, memory, mask, new_tokens[index] if new_tokens else None)

    def row(
        self,
        question: str,
        what: str,
        unit: Unit,
        units: float,
        work: Work | None,
        notes: tuple[str, ...] = (),
        **sizes: int,
    ) -> Row:
        """Return a row of this contender without samples; its prompt and memory are added to the sizes."""
        if "memory_len" not in sizes:
            sizes["memory_len"] = self.longest_memory
        if self.prompt_len:
            sizes["prompt_len"] = self.prompt_len
        return Row(
            question,
            what,
            self.who,
            sizes,
            self.precision,
            self.threads,
            unit,
            units,
            work=work,
            fits_in_cache=self.cost.fits_in_cache,
            notes=notes,
        )

    def plan(self, num_slots: int, memory_len: int, max_new_tokens: int) -> SlotPlan:
        """Return a plan whose texts end at their length alone, and are not guessed: they come again and again."""
        return SlotPlan(num_slots, memory_len, max_new_tokens, Sampling(), may_guess=False)
