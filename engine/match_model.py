"""A bundle that reads ranks of genes, as a user meets it: annotate and embed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias, Unpack

import numpy as np
import numpy.typing as npt

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells.given import Cells, opened
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import BundleError, UsageError
from cellscribe.engine.family_model import FamilyModel, check_threads, kept
from cellscribe.engine.labelling.finish import FinishOptions, finish_of
from cellscribe.engine.labels import Labels, labels_of, with_definitions
from cellscribe.engine.labels_file import read_labels
from cellscribe.engine.matching.zero_shot import ZeroShot
from cellscribe.engine.output.fields import check_key
from cellscribe.engine.output.frame import to_frame
from cellscribe.engine.rank_model import TEMPLATE, RankModel
from cellscribe.engine.search import CellIndex
from cellscribe.engine.search.build import Nearest, build_index
from cellscribe.engine.search.find import cells_by_vector

if TYPE_CHECKING:
    import pandas as pd

GivenLabels: TypeAlias = str | Path | Sequence[str] | Mapping[str, str | None] | Labels


class MatchModel(FamilyModel):
    """One bundle of the families langcell and geneformer on one device.

    Cells are the path of a file, an AnnData object, or a source that :func:`cellscribe.engine.cells.open_cells`
    opened. What is found is also written into an AnnData object that is given, unless `copy` is true. Every method
    raises InputError for cells that cannot be read, and UsageError for an option that cannot be honoured.

    Parameters
    ----------
    bundle, threads, backend, plans
        As for :class:`cellscribe.engine.rank_model.RankModel`.

    Attributes
    ----------
    ranks
        The same for opened cells, with progress: what the command line is made of.

    Examples
    --------
    >>> import cellscribe as cs
    >>> model = cs.load("LANGCELL_BUNDLE")  # doctest: +SKIP
    >>> model.annotate(adata, labels=["B cell", "T cell"])["label"]  # doctest: +SKIP
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, backend: str = "auto", plans: str | Path | None = None
    ) -> None:
        check_threads(threads)
        self.ranks = RankModel(bundle, threads, backend, None if plans is None else Path(plans))
        super().__init__(self.ranks)

    def annotate(
        self,
        cells: Cells,
        labels: GivenLabels,
        *,
        alpha: float = 0.1,
        rerank: int | Literal["all", "sure"] = "all",
        definitions: bool = False,
        threshold: float = 0.0,
        template: str = TEMPLATE,
        layer: str | None = None,
        values: ValueChoice = "auto",
        key_added: str = "cellscribe",
        copy: bool = False,
        **finish: Unpack[FinishOptions],
    ) -> pd.DataFrame:
        """Label cells with labels that the model was never trained on.

        Parameters
        ----------
        labels
            Names, a mapping of names to Cell Ontology ids (None for none), or a file.
        alpha, rerank
            How labels are scored; see :class:`cellscribe.engine.matching.zero_shot.ZeroShot`.
        definitions
            Put the labels' definitions into their texts.
        threshold, template
            As for :meth:`cellscribe.engine.rank_model.RankModel.annotate_cells`.
        layer, values
            As for :meth:`cellscribe.engine.model.Model.describe`.
        key_added
            Prefix of the keys written: obs ``<key>_label``, ``<key>_score``, ``<key>_runner_up``, ``<key>_margin``,
            ``<key>_status``, where ids are known ``<key>_cell_ontology_term_id``, and of clusters
            ``<key>_majority_voting``, ``<key>_majority_share`` and ``<key>_over_clustering``; obsm
            ``<key>_label_scores`` and ``X_<key>``; uns ``<key>``.
        copy
            Leave an AnnData object as it is and only return the frame.
        finish
            Votes of clusters and a report: :class:`cellscribe.engine.labelling.finish.FinishOptions`.

        Returns
        -------
        One row per cell, indexed by its name: ``label``, ``score`` (0..1), ``status``, and what else is known.
        """
        check_key(key_added)
        given = read_labels(Path(labels)) if isinstance(labels, (str, Path)) else labels_of(labels)
        if given is None:
            raise UsageError(f"the bundle {self.bundle.name} chooses from labels; give some.")
        chosen, how = with_definitions(given, definitions), ZeroShot(alpha, rerank)
        finished = finish_of(**finish)
        with opened(cells, layer, values) as source:
            finished.check(source, has_vectors=True)
            run = self.ranks.annotate_cells(source, chosen, how=how, threshold=threshold, template=template)
            run = kept(finished.voted(run, source), cells, key_added, copy)
            finished.write(run, source)
        return to_frame(run)

    def embed(
        self,
        cells: Cells,
        *,
        layer: str | None = None,
        values: ValueChoice = "auto",
        key_added: str = "cellscribe",
        copy: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Embed cells: float32 [N, p], also written to ``adata.obsm["X_<key_added>"]``.

        Vectors of LangCell have length 1, those of Geneformer are as the model gives them; a cell that could not be
        embedded has a row of NaN. Parameters as for :meth:`annotate`.
        """
        check_key(key_added)
        with opened(cells, layer, values) as source:
            run = self.ranks.embed_cells(source)
        found = kept(run, cells, key_added, copy).embeddings
        assert found is not None
        return found

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts as they are: float32 [L, p] of length 1.

        Raises
        ------
        BundleError
            When the bundle has no texts.
        UsageError
            For a text beyond the encoder's positions, or no list of texts.
        """
        if isinstance(texts, str):
            raise UsageError(f"texts is one text ({texts[:40]!r}); give a list of texts.")
        if not texts:
            raise UsageError("there are no texts; give one at least.")
        return self.ranks.encode_texts(texts).vectors

    def index(
        self,
        cells: Cells,
        folder: str | Path,
        *,
        columns: Sequence[str] = (),
        nearest: Nearest = "auto",
        layer: str | None = None,
        values: ValueChoice = "auto",
    ) -> CellIndex:
        """Embed cells into a new folder that can be searched; the same call goes on after a stop.

        Parameters and errors as for :func:`cellscribe.engine.search.build.build_index`.
        """
        with opened(cells, layer, values) as source:
            built = build_index(
                self.ranks.embed_cells, self.bundle, source, Path(folder), columns=tuple(columns), kind=nearest
            )
        return built.index

    def search(self, index: CellIndex, texts: Sequence[str], k: int = 10, *, exact: bool = False) -> pd.DataFrame:
        """Find the cells of an index that texts fit best.

        Returns
        -------
        ``query``, ``rank`` from 1, ``cell_id``, ``score`` (cosine), and the columns that the index keeps.

        Raises
        ------
        UsageError
            When the index was made with another bundle.
        """
        if index.manifest["bundle"]["hash"] != self.bundle.hash:
            raise UsageError(
                f"the index {index.folder} was made with the bundle {index.manifest['bundle']['name']}, not with "
                f"{self.bundle.name}; search with that one."
            )
        return cells_by_vector(index, texts, self.embed_texts(texts), k, exact=exact)

    def describe(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: the family writes no texts."""
        raise self._lacks("describe")

    def stream(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: the family writes no texts."""
        raise self._lacks("stream")

    def ask(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: the family takes no questions."""
        raise self._lacks("ask")

    def generate(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: the family writes no cells."""
        raise self._lacks("generate")

    def _lacks(self, what: str) -> BundleError:
        has = "annotate or embed" if self.ranks.shape.text else "embed"
        return BundleError(
            f"the bundle {self.bundle.name} ({self.bundle.manifest.family}) does not {what}; use {has}, or choose a "
            "bundle of another family."
        )
