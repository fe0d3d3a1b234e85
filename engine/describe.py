"""The way of a cell through the engine: tokens, memory, slots, text, evidence."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Backend, Memory, SlotPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellSource, CellTokenizer, TokenBatch
from cellscribe.engine.decode.ahead import Ahead
from cellscribe.engine.decode.described import description_of, failed, open_slots, piece_of
from cellscribe.engine.decode.evidence import GeneAxis, Symbols
from cellscribe.engine.decode.scheduler import Occupancy, Request, Scheduler, Text, TokenEvent
from cellscribe.engine.decode.texts import GrowingText
from cellscribe.engine.errors import BackendError
from cellscribe.engine.keyed import cell_key
from cellscribe.engine.types import AttentionRecord, Description, Piece, Sampling

Progress = Callable[[int, int, int], None]  # results done, results in all, tokens so far
OnPiece = Callable[[str, Piece], None]
Embeddings = npt.NDArray[np.float32]

ENCODE_CELLS = 8  # cells tokenised and encoded at a time while slots wait for them, at least


@dataclass(frozen=True)
class DescribeOptions:
    """How texts are written; see :meth:`cellscribe.engine.model.Model.describe`."""

    sampling: Sampling
    max_new_tokens: int
    num_slots: int
    top_genes: int
    keep_attention: bool = False


@dataclass(frozen=True)
class Subject:
    """What is described: its place in the results, its name, and the genes behind its memory."""

    index: int
    cell_id: str
    axis: GeneAxis


Asked = tuple[Subject, Memory, npt.NDArray[np.bool_]]  # whom, memory [S, d], mask [S]


class Writer:
    """Writes texts about memories with the slots of one backend.

    Where the backend has use for it, requests are made ready in a thread while others are written.
    """

    def __init__(self, backend: Backend, bundle: Bundle, options: DescribeOptions) -> None:
        self._backend, self._bundle, self._options = backend, bundle, options
        self._subjects: dict[int, Subject] = {}
        self._growing: dict[int, GrowingText] = {}
        self.descriptions: dict[int, Description] = {}
        self.attention: dict[int, AttentionRecord] = {}
        self.notice = ""  # what a user should know about the run
        self.occupancy = Occupancy()
        self.num_slots = 0

    def events(self, requests: Iterator[Asked], num_genes: int) -> Generator[TokenEvent]:
        """Run requests (subject, memory [S, d], mask [S]) to the end; S is at most `num_genes`."""
        options, prompt = self._options, self._bundle.manifest.prompt
        eos_ids = frozenset(prompt.eos_token_ids if prompt else ())
        plan = SlotPlan(
            options.num_slots, num_genes, options.max_new_tokens, options.sampling, options.keep_attention, eos_ids
        )
        slots, num_slots, self.notice = open_slots(self._backend, plan)
        self.num_slots = num_slots
        with closing(Ahead(requests, self._backend.cells_ahead)) as ready:
            scheduler = Scheduler(
                slots,
                num_slots,
                eos_ids=eos_ids,
                max_new_tokens=options.max_new_tokens,
                keep_attention=options.keep_attention,
                is_ready=ready.is_ready,
            )
            self.occupancy = scheduler.occupancy
            for event in scheduler.run(self._register(ready)):
                if event.text.is_finished:
                    self._finish(event.text)
                yield event

    def subject(self, event: TokenEvent) -> Subject:
        """Whom an event is about."""
        return self._subjects[event.text.request.index]

    def piece(self, event: TokenEvent) -> Piece:
        """The token of an event as text with its genes."""
        subject = self.subject(event)
        growing = self._growing.setdefault(subject.index, GrowingText(self._bundle.tokenizer))
        return piece_of(event, growing, subject.axis, self._options.top_genes)

    def take(self, index: int) -> Description:
        """Hand out a finished description, and forget its text."""
        self._subjects.pop(index, None)
        self._growing.pop(index, None)
        return self.descriptions.pop(index)

    def _register(self, requests: Iterator[Asked]) -> Iterator[Request]:
        for subject, memory, mask in requests:
            self._subjects[subject.index] = subject
            yield Request(subject.index, cell_key(subject.cell_id), memory, mask)

    def _finish(self, text: Text) -> None:
        subject = self._subjects[text.request.index]
        count = self._options.top_genes
        self.descriptions[subject.index] = description_of(
            text, subject.cell_id, subject.axis, self._bundle.tokenizer, count
        )
        if self._options.keep_attention and text.attention:
            weights = np.stack(text.attention, 2).astype(np.float16)  # [L, H, T, S]; there may be many
            self.attention[subject.index] = AttentionRecord(subject.cell_id, tuple(subject.axis.symbols), weights)


def gene_axes(batch: TokenBatch, tokens: tuple[str, ...]) -> Iterator[GeneAxis]:
    """Return the genes behind each cell's memory."""
    for genes, columns in zip(batch.genes, batch.columns, strict=True):
        yield GeneAxis(Symbols(tokens, genes), columns)


def longest_memory(tokenizer: CellTokenizer) -> int:
    """Return the most tokens that a cell can have, `<cls>` included."""
    genes = len(tokenizer.genes)
    return 1 + (genes if tokenizer.spec.layout == "fixed" else min(genes, tokenizer.spec.num_genes))


class CellFeed:
    """Tokenises and encodes cells as they are asked for, and keeps their embeddings and failures.

    Both may be written by another thread than the one that reads them: read them after the last cell.
    """

    def __init__(
        self,
        backend: Backend,
        bundle: Bundle,
        tokenizer: CellTokenizer,
        source: CellSource,
        rows: npt.NDArray[np.int64],
    ) -> None:
        self._backend, self._bundle, self._tokenizer = backend, bundle, tokenizer
        self._rows = rows
        self._index = {int(row): i for i, row in enumerate(rows)}
        self._names = source.obs_names
        self.embeddings = np.full((len(rows), bundle.manifest.encoder_shape.d_model), np.nan, np.float32)
        self.failures: dict[int, Description] = {}

    def __iter__(self) -> Iterator[Asked]:
        """Yield each usable cell with its memory and mask, in order."""
        cells = max(ENCODE_CELLS, self._backend.cells_ahead // 2)
        for batch in self._tokenizer.batches(rows=self._rows, batch_cells=cells):
            for row, why in batch.failures:
                index = self._index[int(row)]
                self.failures[index] = failed(str(self._names[row]), why)
            if not len(batch.rows):
                continue
            encoded = self._backend.encode(batch)
            axes = gene_axes(batch, self._bundle.vocabulary.tokens)
            is_finite = cast("list[bool]", np.isfinite(encoded.cell).all(axis=1).tolist())
            for i, (row, axis) in enumerate(zip(batch.rows.tolist(), axes, strict=True)):
                index, cell = self._index[row], encoded.cell[i]
                if not is_finite[i]:
                    self.failures[index] = failed(batch.cell_ids[i], "its embedding is not finite")
                    continue
                # The bits of np.linalg.norm, which does the same behind more checks; a sum over the batch has others.
                np.divide(cell, np.sqrt(cell.dot(cell)), out=self.embeddings[index])
                yield Subject(index, batch.cell_ids[i], axis), encoded.memory[i], batch.mask[i]


def write_all(
    writer: Writer,
    requests: Iterator[Asked],
    num_genes: int,
    total: int,
    progress: Progress | None,
    on_piece: OnPiece | None,
) -> str:
    """Write until all is written or the backend gives up: then return why, or raise it where no text is finished."""
    tokens = 0
    try:
        with closing(writer.events(requests, num_genes)) as events:
            for event in events:
                tokens += event.token_id is not None
                if on_piece and event.token_id is not None:
                    on_piece(writer.subject(event).cell_id, writer.piece(event))
                if progress:
                    progress(len(writer.descriptions), total, tokens)
    except BackendError as error:
        if not any(one.is_ok for one in writer.descriptions.values()):
            raise
        return str(error).removesuffix(".")
    return ""


def embed_all(feed: CellFeed, total: int, progress: Progress | None) -> str:
    """Embed until all is embedded or the backend gives up: then return why, or raise it where no cell is embedded."""
    done = 0
    try:
        for _ in feed:
            done += 1
            if progress:
                progress(done, total, 0)
    except BackendError as error:
        if not done:
            raise
        return str(error).removesuffix(".")
    return ""
