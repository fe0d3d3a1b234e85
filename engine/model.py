"""The model as a user meets it: load a bundle, then describe, stream or embed cells, or what its family does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt
from anndata import AnnData

from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.cells.spec import HvgFlavor
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.dialogue_model import DialogueModel
from cellscribe.engine.errors import BundleError, InputError, UsageError
from cellscribe.engine.match_model import MatchModel
from cellscribe.engine.output.anndata import annotate
from cellscribe.engine.output.frame import to_frame
from cellscribe.engine.packaged import named_bundle, packaged_bundle, packaged_cells
from cellscribe.engine.sentence_model import SentenceModel
from cellscribe.engine.source_model import SourceModel
from cellscribe.engine.types import Piece, Sampling

if TYPE_CHECKING:
    import pandas as pd


class Model(SourceModel):
    """One bundle on one device, for AnnData; see :class:`SourceModel` for its parameters."""

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

    def annotate(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: families with an encoder label no cells."""
        raise self._lacks("annotate")

    def ask(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: families with an encoder take no questions."""
        raise self._lacks("ask")

    def generate(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: families with an encoder write no cells."""
        raise self._lacks("generate")

    def _lacks(self, what: str) -> BundleError:
        has = "describe, stream or embed" if self.bundle.describes else "embed"
        return BundleError(
            f"the bundle {self.bundle.name} ({self.bundle.manifest.family}) does not {what}; use {has}, or choose a "
            f"bundle of the family {'c2s or langcell' if what == 'annotate' else 'c2s'}."
        )

    @contextmanager
    def _opened(self, adata: AnnData, layer: str | None, values: ValueChoice) -> Iterator[CellSource]:
        """Open a user's object, and hold on to nothing of it afterwards."""
        if not isinstance(adata, AnnData):
            raise InputError(
                f"the cells are {type(adata).__name__}, not AnnData; read a file with anndata.read_h5ad, "
                "or give it to `cellscribe describe`."
            )
        try:
            with open_cells(adata, layer=layer, values=values) as source:
                yield source
        finally:
            self._matched = None


def load(
    bundle: str | Path = "demo",
    *,
    threads: int | None = None,
    seed: int = 0,
    hvg: Sequence[str] | None = None,
    hvg_flavor: HvgFlavor | None = None,
    backend: str = "auto",
    plans: str | Path | None = None,
    organism: str = "human",
    genes_per_cell: int | None = None,
    template: int | str | None = None,
    templates: str | Path | None = None,
) -> Model | SentenceModel | MatchModel | DialogueModel:
    """Load a bundle.

    What comes is a :class:`Model`, a :class:`SentenceModel` where the bundle reads cells as sentences (c2s), a
    :class:`MatchModel` where it reads ranks of genes (langcell, geneformer), or a :class:`DialogueModel` where it
    follows instructions (instructcell). All have every method; one that a family lacks raises BundleError and says what
    to use.

    Parameters
    ----------
    bundle
        A bundle folder, or "demo" for the small model that comes with the package.
    threads, seed, hvg, hvg_flavor, backend, plans
        See :class:`cellscribe.engine.source_model.SourceModel`.
    organism, genes_per_cell, template, templates
        Of bundles that read sentences; see :class:`cellscribe.engine.sentence_model.SentenceModel`. Those that follow
        instructions have the last two; see :class:`cellscribe.engine.dialogue_model.DialogueModel`.

    Raises
    ------
    BundleError
        When the bundle is missing, damaged, unsafe or too new.
    BackendError
        When the backend that was asked for cannot run here.
    UsageError
        For an option that does not go with the others.
    """
    opened = open_bundle(named_bundle(bundle))
    if opened.manifest.ranks is not None:
        if (hvg, hvg_flavor, organism, genes_per_cell, template, templates) != (None, None, "human", None, None, None):
            raise UsageError(
                f"the bundle {opened.name} reads ranks of genes; leave gene lists and what belongs to sentences out."
            )
        return MatchModel(opened, threads=threads, backend=backend, plans=plans)
    if opened.manifest.instruct is not None:
        if (hvg, hvg_flavor, organism, genes_per_cell) != (None, None, "human", None):
            raise UsageError(
                f"the bundle {opened.name} follows instructions; leave gene lists, organism and genes per cell out."
            )
        return DialogueModel(
            opened, threads=threads, seed=seed, backend=backend, template=template, templates=templates, plans=plans
        )
    if opened.manifest.sentences is not None:
        if hvg is not None or hvg_flavor is not None:
            raise UsageError(
                f"the bundle {opened.name} reads sentences of all genes; leave the gene list and its flavour out."
            )
        return SentenceModel(
            opened,
            threads=threads,
            seed=seed,
            backend=backend,
            organism=organism,
            genes_per_cell=genes_per_cell,
            template=0 if template is None else template,
            templates=templates,
            plans=plans,
        )
    if (organism, genes_per_cell, template, templates) != ("human", None, None, None):
        raise UsageError(
            f"the bundle {opened.name} reads no sentences; leave organism, genes per cell, template and templates out."
        )
    return Model(
        opened,
        threads=threads,
        seed=seed,
        hvg=hvg,
        hvg_flavor=hvg_flavor,
        backend=backend,
        plans=None if plans is None else Path(plans).expanduser(),
    )


__all__ = ["DialogueModel", "MatchModel", "Model", "SentenceModel", "load", "packaged_bundle", "packaged_cells"]
