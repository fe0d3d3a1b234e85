"""A bundle that follows instructions, as a user meets it: annotate, ask, generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias, Unpack

from anndata import AnnData

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells.given import Cells, opened
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import BundleError, UsageError
from cellscribe.engine.family_model import FamilyModel, check_threads, kept
from cellscribe.engine.instruct.annotate import annotate_cells
from cellscribe.engine.instruct.asking import AskSettings
from cellscribe.engine.instruct.fields import without_clash
from cellscribe.engine.instruct.templates import ANNOTATION
from cellscribe.engine.instruct.writing import CellOrder, write_cells
from cellscribe.engine.instruct_model import InstructModel
from cellscribe.engine.labelling.finish import FinishOptions, finish_of
from cellscribe.engine.labels import Labels, labels_of
from cellscribe.engine.labels_file import read_labels
from cellscribe.engine.output.fields import check_key
from cellscribe.engine.output.frame import to_frame
from cellscribe.engine.questions import answers_frame
from cellscribe.engine.types import Sampling

if TYPE_CHECKING:
    import pandas as pd

GivenLabels: TypeAlias = str | Path | Sequence[str] | Mapping[str, str | None] | Labels


class DialogueModel(FamilyModel):
    """One bundle of the family instructcell on one device.

    Cells are the path of a file, an AnnData object, or a source that :func:`cellscribe.engine.cells.open_cells`
    opened. What is found is also written into an AnnData object that is given, unless `copy` is true. Every method
    raises InputError for cells that cannot be read, and UsageError for an option that cannot be honoured.

    Parameters
    ----------
    bundle, threads, backend, templates, plans
        As for :class:`cellscribe.engine.instruct_model.InstructModel`.
    seed
        Key of all draws.
    template
        Which instruction of a task, from 0 on; "draw" draws one for every cell by its name; None takes the first whose
        values are known. An instruction of one's own takes its place.

    Attributes
    ----------
    instruct
        The same for opened cells, with progress: what the command line is made of.

    Examples
    --------
    >>> import cellscribe as cs
    >>> model = cs.load("INSTRUCTCELL_BUNDLE")  # doctest: +SKIP
    >>> model.ask(adata, "Which cell type is this?")["answer"]  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        seed: int = 0,
        backend: str = "auto",
        template: int | str | None = None,
        templates: str | Path | None = None,
        plans: str | Path | None = None,
    ) -> None:
        check_threads(threads)
        if isinstance(template, str) and template != "draw":
            raise UsageError(f"template is {template!r}; give the number of an instruction, from 0 on, or 'draw'.")
        self._seed, self._draws = seed, template == "draw"
        self._number = None if isinstance(template, str) else template
        self.instruct = InstructModel(
            bundle, threads, backend, None if templates is None else Path(templates),
            None if plans is None else Path(plans),
        )  # fmt: skip
        super().__init__(self.instruct)

    @property
    def notice(self) -> str:
        """What should be known about the last answers, as fewer slots than asked for; empty when there is nothing."""
        return self.instruct.notice

    def annotate(
        self,
        cells: Cells,
        labels: GivenLabels | None = None,
        *,
        task: str = ANNOTATION,
        instruction: str | None = None,
        fields: Mapping[str, str] | None = None,
        scores: bool = False,
        in_words: bool = False,
        max_new_tokens: int = 64,
        batch_size: int = 32,
        layer: str | None = None,
        values: ValueChoice = "auto",
        key_added: str = "cellscribe",
        copy: bool = False,
        **finish: Unpack[FinishOptions],
    ) -> pd.DataFrame:
        """Label cells, freely or from a list: with their types, or with what a drug does to them.

        Parameters
        ----------
        labels
            Names, a mapping of names to Cell Ontology ids (None for none), or a file; None leaves the model free.
        task, instruction, fields
            As for :class:`cellscribe.engine.instruct.asking.AskSettings`: ``task="drug_sensitivity_prediction"`` with
            ``fields={"drug": "Cisplatin"}``.
        scores, in_words
            As for :func:`cellscribe.engine.instruct.annotate.annotate_cells`: score every label; or let a chat model
            answer in words, and find the label there.
        max_new_tokens
            Longest free answer.
        batch_size
            Cells in work at the same time. It changes speed, never labels.
        layer, values
            As for :meth:`cellscribe.engine.model.Model.describe`.
        key_added
            Prefix of the keys written: obs ``<key>_label``, ``<key>_score``, ``<key>_status`` and, where ids are known,
            ``<key>_cell_ontology_term_id``, and ``<key>_answer`` with `in_words`; uns ``<key>``.
        copy
            Leave an AnnData object as it is and only return the frame.
        finish
            Votes of clusters and a report: :class:`cellscribe.engine.labelling.finish.FinishOptions`.

        Returns
        -------
        One row per cell, indexed by its name: ``label``, ``score`` (0..1; with `in_words` the probability of all words
        of the answer, which falls with their number), ``status``, and what else is known.
        """
        check_key(key_added)
        chosen = read_labels(Path(labels)) if isinstance(labels, (str, Path)) else labels_of(labels)
        finished = finish_of(**finish)
        with opened(cells, layer, values) as source:
            finished.check(source)
            run = annotate_cells(
                self.instruct,
                source,
                labels=chosen,
                asked=self.asked(instruction, task, fields),
                all_scores=scores,
                in_words=in_words,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
            )
            run = kept(finished.voted(run, source), cells, key_added, copy)
            finished.write(run, source)
        return to_frame(run)

    def ask(
        self,
        cells: Cells,
        question: str | None = None,
        *,
        task: str | None = None,
        fields: Mapping[str, str] | None = None,
        labels: Sequence[str] | None = None,
        max_new_tokens: int = 64,
        batch_size: int = 32,
        layer: str | None = None,
        values: ValueChoice = "auto",
    ) -> pd.DataFrame:
        """Ask about every cell.

        Parameters
        ----------
        question
            In own words, ``{cell}`` where the cell belongs; without one the cell is put before it.
        task, fields, labels, max_new_tokens, batch_size, layer, values
            As for :meth:`annotate`.

        Returns
        -------
        One row per cell: :func:`cellscribe.engine.questions.answers_frame`.
        """
        if (question is None) == (task is None):
            raise UsageError("ask takes a question or --task (task); give one of them.")
        with opened(cells, layer, values) as source:
            found = self.instruct.about_cells(
                source, self.asked(question, task or ANNOTATION, fields), labels=labels,
                max_new_tokens=max_new_tokens, batch_size=batch_size,
            )  # fmt: skip
        return answers_frame(found)

    def generate(
        self,
        cell_type: str | None = None,
        n: int = 10,
        *,
        fields: Mapping[str, str] | None = None,
        instruction: str | None = None,
        means: bool = False,
        temperature: float = 0.0,
        top_p: float | None = None,
        max_new_tokens: int = 64,
        batch_size: int = 32,
    ) -> AnnData:
        """Write cells.

        Parameters
        ----------
        cell_type
            What kind of cell.
        n
            How many.
        fields, instruction, means, max_new_tokens, batch_size
            As for :class:`cellscribe.engine.instruct.writing.CellOrder`.
        temperature, top_p
            How the model's words are drawn; 0 takes the most probable ones. Without `top_p` it is 0.9 where they are
            drawn.

        Returns
        -------
        Cells with counts in X.
        """
        wanted = without_clash({"cell_type": cell_type}, fields or {})
        sampling = Sampling.of(top_p, temperature, self._seed)
        number, draws = self.template_for(instruction)
        order = CellOrder(
            n, wanted, instruction, number, draws, sampling, self._seed, means, max_new_tokens, batch_size
        )
        return write_cells(self.instruct, order)[0]

    def describe(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: cells are asked about by instruction."""
        raise self._lacks("describe")

    def stream(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: cells are asked about by instruction."""
        raise self._lacks("stream")

    def embed(self, *_: object, **__: object) -> NoReturn:
        """Raise BundleError: the family has no vector for a cell."""
        raise self._lacks("embed")

    def asked(
        self, instruction: str | None = None, task: str = ANNOTATION, fields: Mapping[str, str] | None = None
    ) -> AskSettings:
        """Return what is asked of cells."""
        number, draws = self.template_for(instruction)
        return AskSettings(instruction, task, dict(fields or {}), number, draws, self._seed)

    def template_for(self, instruction: str | None) -> tuple[int | None, bool]:
        """Return which instruction of a task is taken, and whether one is drawn; neither beside a user's own."""
        return (self._number, self._draws) if instruction is None else (None, False)

    def _lacks(self, what: str) -> BundleError:
        return BundleError(
            f"the bundle {self.bundle.name} ({self.bundle.manifest.family}) does not {what}; use annotate, ask or "
            "generate, or choose a bundle of another family."
        )
