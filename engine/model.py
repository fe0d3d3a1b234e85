"""The model as a user meets it: load a bundle, then describe, stream or embed cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import CellSource, CellTokenizer, open_cells
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.describe import Asked, CellFeed, DescribeOptions, OnPiece, Progress, Writer, longest_memory
from cellscribe.engine.errors import BundleError, InputError, UsageError
from cellscribe.engine.output.anndata import annotate
from cellscribe.engine.output.frame import to_frame
from cellscribe.engine.output.run import Run
from cellscribe.engine.packaged import packaged_bundle, packaged_cells
from cellscribe.engine.pools import Pools, pool_requests
from cellscribe.engine.types import Piece, Sampling, check_max_new_tokens
from cellscribe.engine.versions import versions

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Rows = npt.NDArray[np.int64]
MAX_SLOTS = 512


class Model:
    """One bundle on one device.

    Parameters
    ----------
    bundle
        An opened bundle.
    threads
        CPU threads; None takes all that the process may use.
    seed
        Key of the draws that break ties between bin edges; the same cell gets the same bins in every run.
    hvg
        Genes to feed a bundle that wants highly variable genes, instead of choosing them from the cells.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, seed: int = 0, hvg: Sequence[str] | None = None
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}; choose at least 1.")
        self.bundle, self._seed, self._hvg = bundle, seed, hvg
        self._backend = OnnxRuntimeCpu(bundle, threads)
        self._matched: tuple[CellSource, CellTokenizer] | None = None

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return self._backend.device

    def describe(
        self,
        adata: AnnData,
        *,
        sampling: Sampling | None = None,
        max_new_tokens: int = 96,
        batch_size: int = 32,
        top_genes: int = 10,
        pool: str | None = None,
        layer: str | None = None,
        values: ValueChoice = "auto",
        key_added: str = "cellscribe",
        copy: bool = False,
    ) -> pd.DataFrame:
        """Describe cells and write the texts into `adata`.

        Parameters
        ----------
        adata
            Cells; counts or log-normalised values in X, ``raw`` or a layer.
        sampling
            How tokens are chosen; None is greedy.
        max_new_tokens
            Longest text in tokens, 32 to 256.
        batch_size
            Slots: texts in progress at a time. It changes speed, never texts.
        top_genes
            Genes listed per text.
        pool
            An obs column: one text per group instead of one per cell.
        layer
            Matrix to read: a layer's name, "X" or "raw"; None looks for counts, then for log-normalised values.
        values
            What the values are, "counts" or "lognorm"; "auto" decides by looking at them.
        key_added
            Prefix of the keys written: obs ``<key>_description`` and others, obsm ``X_<key>``,
            ``<key>_top_genes`` (indices into var), ``<key>_top_gene_weights``, uns ``<key>``.
        copy
            Leave `adata` as it is and only return the frame.

        Returns
        -------
        One row per cell (or pool), indexed by its name.

        Raises
        ------
        InputError
            When the cells cannot be read or too few genes match.
        UsageError
            For an option out of range.
        """
        with self._opened(adata, layer, values) as source:
            run = self.describe_cells(
                source,
                pool=pool,
                sampling=sampling or Sampling(),
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                top_genes=top_genes,
            )
        if not copy:
            annotate(adata, run, key_added)
        return to_frame(run)

    def embed(
        self,
        adata: AnnData,
        *,
        layer: str | None = None,
        values: ValueChoice = "auto",
        key_added: str = "cellscribe",
        copy: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Embed cells: float32 [N, d], of length 1 each, also written to ``adata.obsm["X_<key_added>"]``.

        A cell that could not be embedded has a row of NaN. Raises InputError when the cells cannot be read.
        """
        with self._opened(adata, layer, values) as source:
            run = self.embed_cells(source)
        if not copy:
            annotate(adata, run, key_added)
        if run.embeddings is None:
            raise InputError("the input holds no cells; give at least one.")
        return run.embeddings

    def stream(
        self,
        adata: AnnData,
        *,
        sampling: Sampling | None = None,
        max_new_tokens: int = 96,
        top_genes: int = 10,
        layer: str | None = None,
        values: ValueChoice = "auto",
    ) -> Iterator[Piece]:
        """Describe one cell token by token; raises InputError unless `adata` holds exactly one."""
        with self._opened(adata, layer, values) as source:
            if source.n_cells != 1:
                raise InputError(f"stream takes one cell and got {source.n_cells}; slice the data, as in adata[0].")
            yield from self.stream_cell(
                source, 0, sampling=sampling or Sampling(), max_new_tokens=max_new_tokens, top_genes=top_genes
            )

    def describe_cells(
        self,
        source: CellSource,
        *,
        rows: Rows | None = None,
        pool: str | None = None,
        sampling: Sampling | None = None,
        max_new_tokens: int = 96,
        batch_size: int = 32,
        top_genes: int = 10,
        attention: bool = False,
        progress: Progress | None = None,
        on_piece: OnPiece | None = None,
    ) -> Run:
        """Describe cells of an opened source; see :meth:`describe`.

        `rows` (int64 [N]) chooses cells, `attention` keeps all weights, `progress` and `on_piece` are called as texts
        grow.
        """
        sampling = sampling or Sampling()
        options = self._options(sampling, max_new_tokens, batch_size, top_genes, attention)
        tokenizer = self._tokenizer(source)
        rows = np.arange(source.n_cells) if rows is None else rows
        settings = self._settings(source, sampling.label(), sampling.seed, max_new_tokens)
        report = tokenizer.report.as_dict()
        writer = Writer(self._backend, self.bundle, options)
        if pool is not None:
            pools = self._pools(source, tokenizer, rows, pool)
            total = len(pools.names)
            self._write(writer, pool_requests(pools, self.bundle), 1, total, progress, on_piece)
            done = tuple(writer.descriptions.get(i) or pools.failed(i) for i in range(total))
            return Run(
                descriptions=done,
                embeddings=pools.vectors,
                attention=tuple(writer.attention[i] for i in sorted(writer.attention)),
                gene_report=report,
                settings=settings,
                pooled_by=pool,
                pool_of=pools.pool_of,
            )
        feed = CellFeed(self._backend, self.bundle, tokenizer, source, rows)
        self._write(writer, iter(feed), longest_memory(tokenizer), len(rows), progress, on_piece)
        found = {**feed.failures, **writer.descriptions}
        return Run(
            rows=rows,
            descriptions=tuple(found[i] for i in range(len(rows))),
            embeddings=feed.embeddings,
            attention=tuple(writer.attention[i] for i in sorted(writer.attention)),
            gene_report=report,
            settings=settings,
        )

    def gene_report(self, source: CellSource) -> dict[str, object]:
        """Say how a source's genes match the bundle's: figures, and ``sentence`` in words."""
        return self._tokenizer(source).report.as_dict()

    def stream_cell(
        self,
        source: CellSource,
        row: int,
        *,
        sampling: Sampling | None = None,
        max_new_tokens: int = 96,
        top_genes: int = 10,
    ) -> Iterator[Piece]:
        """Describe one row of a source token by token."""
        options = self._options(sampling or Sampling(), max_new_tokens, 1, top_genes, False)
        tokenizer = self._tokenizer(source)
        feed = CellFeed(self._backend, self.bundle, tokenizer, source, np.array([row], dtype=np.int64))
        writer = Writer(self._backend, self.bundle, options)
        for event in writer.events(iter(feed), longest_memory(tokenizer)):
            if event.token_id is not None:
                yield writer.piece(event)
        for failure in feed.failures.values():
            raise InputError(f"cell {failure.cell_id}: {failure.status.removeprefix('failed: ')}")

    def embed_cells(
        self, source: CellSource, *, rows: Rows | None = None, batch_size: int = 32, progress: Progress | None = None
    ) -> Run:
        """Embed cells of an opened source; see :meth:`embed`."""
        tokenizer = self._tokenizer(source)
        rows = np.arange(source.n_cells) if rows is None else rows
        feed = CellFeed(self._backend, self.bundle, tokenizer, source, rows)
        for done, _ in enumerate(feed, start=1):
            if progress:
                progress(done, len(rows), 0)
        return Run(
            rows=rows,
            embeddings=feed.embeddings,
            gene_report=tokenizer.report.as_dict(),
            settings=self._settings(source, "none", self._seed, 0),
            cell_ids=tuple(str(source.obs_names[row]) for row in rows),
        )

    def _write(
        self,
        writer: Writer,
        requests: Iterator[Asked],
        num_genes: int,
        total: int,
        progress: Progress | None,
        on_piece: OnPiece | None,
    ) -> None:
        tokens = 0
        for event in writer.events(requests, num_genes):
            tokens += event.token_id is not None
            if on_piece and event.token_id is not None:
                on_piece(writer.subject(event).cell_id, writer.piece(event))
            if progress:
                progress(len(writer.descriptions), total, tokens)

    def _pools(self, source: CellSource, tokenizer: CellTokenizer, rows: Rows, column: str) -> Pools:
        labels = source.obs_column(column)
        feed = CellFeed(self._backend, self.bundle, tokenizer, source, rows)
        for _ in feed:
            pass
        return Pools.of(column, labels, rows, feed.embeddings, source.n_cells)

    def _tokenizer(self, source: CellSource) -> CellTokenizer:
        """Match a source's genes, once: choosing highly variable ones reads all of it."""
        if self._matched is None or self._matched[0] is not source:
            manifest = self.bundle.manifest
            made = CellTokenizer(manifest.cells, self.bundle.vocabulary, source, seed=self._seed, hvg=self._hvg)
            self._matched = (source, made)
        return self._matched[1]

    @contextmanager
    def _opened(self, adata: AnnData, layer: str | None, values: ValueChoice) -> Iterator[CellSource]:
        """Open a user's object, and hold on to nothing of it afterwards."""
        try:
            with open_cells(adata, layer=layer, values=values) as source:
                yield source
        finally:
            self._matched = None

    def _options(
        self, sampling: Sampling, max_new_tokens: int, batch_size: int, top_genes: int, attention: bool
    ) -> DescribeOptions:
        if not self.bundle.describes:
            raise BundleError(
                f"the bundle {self.bundle.name} holds an encoder alone; use embed, or choose a bundle with a decoder."
            )
        if not 1 <= batch_size <= MAX_SLOTS:
            raise UsageError(f"batch_size is {batch_size}; choose a whole number from 1 to {MAX_SLOTS}.")
        return DescribeOptions(sampling, check_max_new_tokens(max_new_tokens), batch_size, top_genes, attention)

    def _settings(self, source: CellSource, sampling: str, seed: int, max_new_tokens: int) -> dict[str, object]:
        return {
            "bundle": self.bundle.name,
            "bundle_hash": self.bundle.hash,
            "precision": self.bundle.manifest.precision,
            "backend": self.device,
            "sampling": sampling,
            "seed": seed,
            "max_new_tokens": max_new_tokens,
            "input": source.path.name if source.path else "AnnData in memory",
            "fingerprint": source.fingerprint(),
            "values": source.value_note,
            "versions": versions(),
        }


def load(
    bundle: str | Path = "demo", *, threads: int | None = None, seed: int = 0, hvg: Sequence[str] | None = None
) -> Model:
    """Load a bundle.

    Parameters
    ----------
    bundle
        A bundle folder, or "demo" for the small model that comes with the package.
    threads, seed, hvg
        See :class:`Model`.

    Raises
    ------
    BundleError
        When the bundle is missing, damaged, unsafe or too new.
    """
    folder = packaged_bundle() if str(bundle) == "demo" and not Path(bundle).is_dir() else Path(bundle)
    return Model(open_bundle(folder), threads=threads, seed=seed, hvg=hvg)


__all__ = ["Model", "load", "packaged_bundle", "packaged_cells"]
