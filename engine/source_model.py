"""A bundle on a device, applied to opened cells: what the Python API and the command line are both made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Backend
from cellscribe.engine.backends.choose import Choice, choose_backend, precision_of
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellSource, CellTokenizer
from cellscribe.engine.cells.spec import HvgFlavor
from cellscribe.engine.decode.described import failed
from cellscribe.engine.describe import (
    CellFeed,
    DescribeOptions,
    OnPiece,
    Progress,
    Writer,
    embed_all,
    longest_memory,
    write_all,
)
from cellscribe.engine.errors import BackendError, BundleError, InputError, UsageError
from cellscribe.engine.output.run import Run
from cellscribe.engine.pools import Pools, after_cells, pool_requests
from cellscribe.engine.types import Piece, Sampling, check_max_new_tokens
from cellscribe.engine.versions import versions

Rows = npt.NDArray[np.int64]
MAX_SLOTS = 512


class SourceModel:
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
    hvg_flavor
        How scanpy chooses them, ``seurat_v3`` or ``cell_ranger``; None as the bundle says.
    backend
        What runs it: ``auto`` (the best that can), ``tensorrt``, ``cuda``, ``cpu`` (our own library), ``onnxruntime``
        (on the GPU where it can), ``onnxruntime-cuda`` or ``onnxruntime-cpu``; or one that was opened already.
    plans
        Folder of TensorRT plans, for a backend that is named; None looks into the bundle and into the user's cache.

    Attributes
    ----------
    backend_choice
        The backend's name, and why better ones were passed over.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        seed: int = 0,
        hvg: Sequence[str] | None = None,
        hvg_flavor: HvgFlavor | None = None,
        backend: str | Backend = "auto",
        plans: Path | None = None,
    ) -> None:
        if bundle.manifest.cell_input.selection != "hvg" and (hvg is not None or hvg_flavor is not None):
            raise UsageError(f"the bundle {bundle.name} chooses its genes itself; leave the gene list and flavour out.")
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}; choose at least 1.")
        self.bundle, self._seed, self._hvg, self._hvg_flavor = bundle, seed, hvg, hvg_flavor
        self.backend_choice = (
            choose_backend(bundle, backend, threads=threads, plans=plans)
            if isinstance(backend, str)
            else Choice(backend, "given")
        )
        self._backend = self.backend_choice.backend
        self._matched: tuple[CellSource, CellTokenizer] | None = None

    @property
    def backend(self) -> Backend:
        """What runs the bundle."""
        return self._backend

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return self._backend.device

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
        """Describe cells of an opened source; see :meth:`cellscribe.engine.model.Model.describe`.

        `rows` (int64 [N]) chooses cells, `attention` keeps all weights, `progress` and `on_piece` are called as texts
        grow. A backend that gives up on the way leaves what is finished; the other cells then say why they failed.
        """
        sampling = sampling or Sampling()
        options = self._options(sampling, max_new_tokens, batch_size, top_genes, attention)
        tokenizer = self.tokenizer(source)
        rows = _chosen(source, rows)
        settings = self._settings(source, sampling.label(), sampling.seed, max_new_tokens)
        report = tokenizer.report.as_dict()
        writer = Writer(self._backend, self.bundle, options)
        if pool is not None:
            pools = self._pools(source, tokenizer, rows, pool, progress)
            total = len(pools.names)
            requests = pool_requests(pools, self.bundle)
            lost = write_all(writer, requests, 1, total, after_cells(len(rows), progress), on_piece)
            return Run(
                descriptions=tuple(writer.descriptions.get(i) or pools.failed(i, lost) for i in range(total)),
                embeddings=pools.vectors,
                attention=tuple(writer.attention[i] for i in sorted(writer.attention)),
                gene_report=report,
                settings=settings,
                notice=writer.notice,
                pooled_by=pool,
                pool_of=pools.pool_of,
            )
        feed = CellFeed(self._backend, self.bundle, tokenizer, source, rows)
        lost = write_all(writer, iter(feed), longest_memory(tokenizer), len(rows), progress, on_piece)
        found = {**feed.failures, **writer.descriptions}
        names = source.obs_names
        return Run(
            rows=rows,
            descriptions=tuple(found.get(i) or failed(str(names[row]), lost) for i, row in enumerate(rows)),
            embeddings=feed.embeddings,
            attention=tuple(writer.attention[i] for i in sorted(writer.attention)),
            gene_report=report,
            settings=settings,
            notice=writer.notice,
        )

    def gene_report(self, source: CellSource) -> dict[str, object]:
        """Say how a source's genes match the bundle's: figures, and ``sentence`` in words."""
        return self.tokenizer(source).report.as_dict()

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
        tokenizer = self.tokenizer(source)
        feed = CellFeed(self._backend, self.bundle, tokenizer, source, np.array([row], dtype=np.int64))
        writer = Writer(self._backend, self.bundle, options)
        for event in writer.events(iter(feed), longest_memory(tokenizer)):
            if event.token_id is not None:
                yield writer.piece(event)
        for failure in feed.failures.values():
            raise InputError(f"cell {failure.cell_id}: {failure.status.removeprefix('failed: ')}")

    def embed_cells(self, source: CellSource, *, rows: Rows | None = None, progress: Progress | None = None) -> Run:
        """Embed cells of an opened source; see :meth:`cellscribe.engine.model.Model.embed`."""
        tokenizer = self.tokenizer(source)
        rows = _chosen(source, rows)
        feed = CellFeed(self._backend, self.bundle, tokenizer, source, rows)
        lost = embed_all(feed, len(rows), progress)
        why = {i: one.status.removeprefix("failed: ") for i, one in feed.failures.items()}
        return Run(
            rows=rows,
            embeddings=feed.embeddings,
            why_lost={i: why.get(i, lost) for i in range(len(rows))} if lost else why,
            gene_report=tokenizer.report.as_dict(),
            settings=self._settings(source, "none", self._seed, 0),
            cell_ids=tuple(str(source.obs_names[row]) for row in rows),
        )

    def _pools(
        self, source: CellSource, tokenizer: CellTokenizer, rows: Rows, column: str, progress: Progress | None
    ) -> Pools:
        labels = source.obs_column(column)
        feed = CellFeed(self._backend, self.bundle, tokenizer, source, rows)
        lost = embed_all(feed, len(rows), progress)
        if lost:  # a mean over some of the cells would not be the pool's
            raise BackendError(f"{lost}.")
        return Pools.of(column, labels, rows, feed.embeddings, source.n_cells)

    def tokenizer(self, source: CellSource) -> CellTokenizer:
        """Match a source's genes, once: choosing highly variable ones reads all of it."""
        if self._matched is None or self._matched[0] is not source:
            manifest = self.bundle.manifest
            made = CellTokenizer(
                manifest.cell_input,
                self.bundle.vocabulary,
                source,
                seed=self._seed,
                hvg=self._hvg,
                hvg_flavor=self._hvg_flavor,
            )
            self._matched = (source, made)
        return self._matched[1]

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
            "precision": precision_of(self.bundle, self._backend),
            "backend": self.device,
            "sampling": sampling,
            "seed": seed,
            "tie_seed": self._seed,
            "max_new_tokens": max_new_tokens,
            "input": source.path.name if source.path else "AnnData in memory",
            "fingerprint": source.fingerprint(),
            "values": source.value_note,
            "top_genes_of": "raw.var" if source.value_origin.startswith("raw") else "var",
            "versions": versions(),
        }


def _chosen(source: CellSource, rows: Rows | None) -> Rows:
    """Return the rows to work on: each once, in the order given; all of them for None."""
    if rows is None:
        return np.arange(source.n_cells)
    return np.array(list(dict.fromkeys(np.asarray(rows).tolist())), dtype=np.int64)
