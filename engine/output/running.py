"""A text while it is being written."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from cellscribe.engine.decode.evidence import named_genes
from cellscribe.engine.types import Description, Piece, TopGenes


@dataclass
class RunningText:
    """What is known of one text so far; :meth:`add` takes the next token.

    The running top genes sum the top genes of each token, so they come close to those of the finished text.
    """

    cell_id: str
    num_top_genes: int = 10
    pieces: list[Piece] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    _weights: dict[tuple[str, int], float] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        """Take the next token."""
        self.pieces.append(piece)
        top = piece.top_genes
        columns = top.columns or (-1,) * len(top.symbols)
        for symbol, weight, column in zip(top.symbols, top.weights, columns, strict=True):
            self._weights[symbol, column] = self._weights.get((symbol, column), 0.0) + weight

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(piece.text for piece in self.pieces)

    def top_genes(self) -> TopGenes:
        """Return the genes attended to most so far; weights are means over the tokens."""
        best = sorted(self._weights.items(), key=lambda item: (-item[1], item[0]))[: self.num_top_genes]
        total = max(len(self.pieces), 1)
        return TopGenes(
            symbols=tuple(key[0] for key, _ in best),
            weights=tuple(weight / total for _, weight in best),
            columns=tuple(key[1] for key, _ in best),
        )

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
