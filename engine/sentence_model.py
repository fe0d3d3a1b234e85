"""A bundle that reads cells as sentences, as a user meets it: annotate, ask, generate, embed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias, Unpack

import numpy as np
import numpy.typing as npt

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells.given import Cells, opened
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import BundleError, UsageError
from cellscribe.engine.family_model import check_threads, kept
from cellscribe.engine.labelling.finish import FinishOptions, finish_of
from cellscribe.engine.labels import Labels, labels_of
from cellscribe.engine.labels_file import read_labels
from cellscribe.engine.output.fields import check_key
from cellscribe.engine.output.frame import to_frame
from cellscribe.engine.questions import Question, answers_frame, ask
from cellscribe.engine.sentence_writer import SentenceWriter
from cellscribe.engine.text_annotate import annotate_cells
from cellscribe.engine.text_embed import embed_cells
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import TextSettings
from cellscribe.engine.types import Sampling

if TYPE_CHECKING:
    import pandas as pd

GivenLabels: TypeAlias = str | Path | Sequence[str] | Mapping[str, str | None] | Labels


class SentenceModel(SentenceWriter):
    """One bundle of the family c2s on one device.

    Cells are the path of a file, an AnnData object, or a source that :func:`cellscribe.engine.cells.open_cells`
    opened. What is found is also written into an AnnData object that is given, unless `copy` is true. Every method
    raises InputError for cells that cannot be read, and UsageError for an option that cannot be honoured.

    Parameters
    ----------
    bundle, threads, backend, templates, plans
        As for :class:`cellscribe.engine.text_model.TextModel`.
    seed, organism, genes_per_cell
        As for :class:`cellscribe.engine.text_types.TextSettings`.
    template
        Which prompt of a task, from 0 on; "draw" draws one for every cell by its name.

    Attributes
    ----------
    text
        The same for opened cells, with progress: what the command line is made of.

    Examples
    --------
    >>> import cellscribe as cs
    >>> model = cs.load("C2S_BUNDLE", genes_per_cell=100)  # doctest: +SKIP
    >>> model.annotate(adata, labels=["B cell", "T cell"])["label"]  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        seed: int = 0,
        backend: str = "auto",
        organism: str = "human",
        genes_per_cell: int | None = None,
        template: int | str = 0,
        templates: str | Path | None = None,
        plans: str | Path | None = None,
    ) -> None:
        check_threads(threads)
        if isinstance(template, str) and template != "draw":
            raise UsageError(f"template is {template!r}; give the number of a prompt, from 0 on, or 'draw'.")
        settings = TextSettings(organism, genes_per_cell, None if isinstance(template, str) else template, seed)
        super().__init__(
            TextModel(
                bundle,
                threads,
                backend,
                None if templates is None else Path(templates),
                settings,
                None if plans is None else Path(plans),
            )
        )

    def annotate(
        self,
        cells: Cells,
        labels: GivenLabels | None = None,
        *,
        scores: bool = False,
        max_new_tokens: int = 32,
        batch_size: int = 32,
        layer: str | None = None,
        values: ValueChoice = "auto",
        key_added: str = "cellscribe",
        copy: bool = False,
        **finish: Unpack[FinishOptions],
    ) -> pd.DataFrame:
        """Label cells, freely or from a list.

        Parameters
        ----------
        labels
            Names, a mapping of names to Cell Ontology ids (None for none), or a file; None leaves the model free.
        scores
            Score every label: the frame gets ``runner_up``, ``margin`` and ``score of <label>``, an AnnData object obs
            ``<key>_runner_up`` and ``<key>_margin`` and obsm ``<key>_label_scores``. Scores compare the labels of the
            list with each other: they change with the list and do not say whether any label fits.
        max_new_tokens
            Longest free answer.
        batch_size
            Cells in work at the same time. It changes speed, never labels.
        layer, values
            As for :meth:`cellscribe.engine.model.Model.describe`.
        key_added
            Prefix of the keys written: obs ``<key>_label``, ``<key>_score``, ``<key>_status`` and, where ids are known,
            ``<key>_cell_ontology_term_id``; uns ``<key>``.
        copy
            Leave an AnnData object as it is and only return the frame.
        finish
            Votes of clusters and a report: :class:`cellscribe.engine.labelling.finish.FinishOptions`.

        Returns
        -------
        One row per cell, indexed by its name: ``label``, ``score`` (0..1), ``status``, and what else is known.
        """
        check_key(key_added)
        chosen = read_labels(Path(labels)) if isinstance(labels, (str, Path)) else labels_of(labels)
        finished = finish_of(**finish)
        with opened(cells, layer, values) as source:
            finished.check(source)
            run = annotate_cells(
                self.text,
                source,
                labels=chosen,
                all_scores=scores,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
            )
            run = kept(finished.voted(run, source), cells, key_added, copy)
            finished.write(run, source)
        return to_frame(run)

    def ask(
        self,
        cells: Cells | None,
        question: str | None = None,
        *,
        task: str | None = None,
        by: str | None = None,
        group_cells: int = 10,
        fields: Mapping[str, str] | None = None,
        labels: Sequence[str] | None = None,
        limit: int | None = None,
        temperature: float = 0.0,
        top_p: float | None = None,
        max_new_tokens: int = 64,
        batch_size: int = 8,
        layer: str | None = None,
        values: ValueChoice = "auto",
    ) -> pd.DataFrame:
        """Ask about every cell, or about groups of cells.

        Parameters
        ----------
        cells
            None for a task about no cells, as gene_set_name, which is answered once.
        question, task, by, group_cells, fields
            As `text`, `task` and so on of :class:`cellscribe.engine.questions.Question`.
        labels, limit
            As for :func:`cellscribe.engine.questions.ask`.
        temperature, top_p
            How tokens are drawn; temperature 0 takes the most probable ones. Without `top_p` it is 0.9 where they
            are drawn.
        max_new_tokens, batch_size, layer, values
            As for :meth:`annotate`.

        Returns
        -------
        One row per cell or group, as :func:`cellscribe.engine.questions.answers_frame` lays them out; of groups also
        ``cells``, the names of those in the prompt, one a line as answers about each cell come.
        """
        sampling = Sampling.of(top_p, temperature, self.text.settings.seed)
        asked = Question(question, task, by, group_cells, dict(fields or {}))
        with nullcontext() if cells is None else opened(cells, layer, values) as source:
            found = ask(
                self.text, source, asked, labels=labels, limit=limit, sampling=sampling,
                max_new_tokens=max_new_tokens, batch_size=batch_size,
            )  # fmt: skip
        return answers_frame(found)

    def embed(
        self,
        cells: Cells,
        *,
        upstream_padding: int | None = None,
        layer: str | None = None,
        values: ValueChoice = "auto",
        key_added: str = "cellscribe",
        copy: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Embed cells: float32 [N, d], the mean of the last states over the prompt of cell type prediction.

        The vectors are also written to ``adata.obsm["X_<key_added>"]`` of an AnnData object that is given. They are as
        the model gives them, not scaled to length 1; a cell that could not be embedded has a row of NaN.

        Parameters
        ----------
        upstream_padding
            As for :func:`cellscribe.engine.text_embed.embed_cells`: average over padding, too, in batches of so many.
        layer, values, key_added, copy
            As for :meth:`annotate`.
        """
        check_key(key_added)
        with opened(cells, layer, values) as source:
            run = embed_cells(self.text, source, upstream_padding=upstream_padding)
        found = kept(run, cells, key_added, copy).embeddings
        assert found is not None
        return found

    def describe(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: the family describes nothing."""
        raise self._lacks("describe")

    def stream(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: the family describes nothing."""
        raise self._lacks("stream")

    def _lacks(self, what: str) -> BundleError:
        return BundleError(
            f"the bundle {self.bundle.name} reads cells as sentences and does not {what}; use annotate, ask, "
            "generate or embed."
        )
