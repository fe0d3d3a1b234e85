"""A text while it is being written."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from cellscribe.engine.decode.evidence import named_genes
from cellscribe.engine.types import Description, Piece, TopGenes


@dataclass
class RunningText:
    """What is known of one text so far; :meth:`add` takes the next token."""

    cell_id: str
    pieces: list[Piece] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def add(self, piece: Piece) -> None:
        """Take the next token."""
        self.pieces.append(piece)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(piece.text for piece in self.pieces)

    def top_genes(self) -> TopGenes:
        """Return the genes attended to most so far."""
        return self.pieces[-1].running_genes if self.pieces else TopGenes()

    def description(self) -> Description:
        """Return the text so far as a description."""
        top, text = self.top_genes(), self.text
        logprobs = [piece.logprob for piece in self.pieces]
        return Description(
            cell_id=self.cell_id,
            text=text.strip(),
            token_ids=tuple(piece.token_id for piece in self.pieces),
            mean_logprob=sum(logprobs) / len(logprobs) if logprobs else float("nan"),
            latency_ms=1000 * (time.perf_counter() - self.started),
            top_genes=top,
            named_genes=named_genes(text, top.symbols),
        )
