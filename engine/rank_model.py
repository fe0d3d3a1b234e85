"""A bundle that reads ranks of genes on a device, applied to opened cells: what API and command line are made of."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.choose import choose_backend
from cellscribe.engine.backends.match import CellState, MatchBackend, TextStates, rank_shape
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import BackendError, BundleError, UsageError
from cellscribe.engine.labels import Labelled, Labels
from cellscribe.engine.matching.zero_shot import LabelScores, ZeroShot, label_scores
from cellscribe.engine.output.run import Run
from cellscribe.engine.provenance import settings_of
from cellscribe.engine.ranks import RankTokenizer
from cellscribe.engine.types import Description

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int, int], None]  # cells done, cells in all, tokens (none here)

TEMPLATE = "cell type: {name}. {definition}; "
UNKNOWN = "unknown"


@dataclass
class RankModel:
    """One bundle that reads ranks on one device.

    Parameters
    ----------
    bundle
        An opened bundle.
    threads
        CPU threads; None takes all that the process may use.
    backend, plans
        What runs it, and a folder of TensorRT plans (:func:`cellscribe.engine.backends.choose.choose_backend`).
    """

    bundle: Bundle
    threads: int | None = None
    backend: str = "auto"
    plans: Path | None = None
    _tokenizer: tuple[CellSource, RankTokenizer] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.shape = rank_shape(self.bundle)
        self.backend_choice = choose_backend(self.bundle, self.backend, threads=self.threads, plans=self.plans)
        self.runtime = cast(MatchBackend, self.backend_choice.backend)

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return self.runtime.device

    @property
    def width(self) -> int:
        """Numbers of a vector, p."""
        return self.shape.d_vector

    def tokenizer(self, source: CellSource) -> RankTokenizer:
        """Match a source's genes, once."""
        if self._tokenizer is None or self._tokenizer[0] is not source:
            spec = self.bundle.manifest.ranks
            assert spec is not None
            self._tokenizer = (source, RankTokenizer(spec, self.bundle.vocabulary, source))
        return self._tokenizer[1]

    def embed_cells(self, source: CellSource, *, rows: Rows | None = None, progress: Progress | None = None) -> Run:
        """Embed cells: ``embeddings`` float32 [N, p], a row of NaN for a cell that could not be.

        Raises
        ------
        InputError
            When the genes do not match, or values cannot be read.
        BackendError
            When the device fails before any cell is embedded.
        """
        rows = _chosen(source, rows)
        found, lost = np.full((len(rows), self.width), np.nan, np.float32), dict[int, str]()
        for place, state in self._encoded(source, rows, lost, progress):
            found[place] = state.vector
        for place in np.flatnonzero(~np.isfinite(found).all(1)).tolist():
            lost.setdefault(place, "its embedding is not finite")
            found[place] = np.nan
        return Run(
            rows,
            embeddings=found,
            why_lost=lost,
            gene_report=self.tokenizer(source).report.as_dict(),
            settings=self.settings_of(source),
            cell_ids=_names(source, rows),
        )

    def annotate_cells(
        self,
        source: CellSource,
        labels: Labels,
        *,
        rows: Rows | None = None,
        how: ZeroShot | None = None,
        threshold: float = 0.0,
        template: str = TEMPLATE,
        progress: Progress | None = None,
    ) -> Run:
        """Label cells with texts that the model was never trained on.

        Parameters
        ----------
        how
            How labels are scored; None as LangCell does.
        threshold
            Cells whose score lies below it are called ``unknown``.
        template
            The text of a label, with ``{name}`` and ``{definition}``.

        Raises
        ------
        UsageError
            For a threshold or a template that makes no sense, or a text beyond the encoder's positions.
        """
        if not 0.0 <= threshold <= 1.0:
            raise UsageError(f"the threshold is {threshold:g}; choose a score from 0 to 1.")
        rows, how = _chosen(source, rows), how or ZeroShot()
        texts = self.encode_labels(labels, template)
        lost, scored = dict[int, str](), dict[int, LabelScores]()
        vectors = np.full((len(rows), self.width), np.nan, np.float32)
        for place, state in self._encoded(source, rows, lost, progress, keeps_states=how.alpha < 1.0):
            vectors[place] = state.vector
            if not np.isfinite(state.vector).all():
                lost[place] = "its embedding is not finite"
                continue
            try:
                matching = self.matching(state, texts)
                scored[place] = label_scores(state.vector, texts.vectors, matching, how, threshold)
            except BackendError as error:
                _give_up(error, lost, scored, len(rows))
                break
        names = _names(source, rows)
        chosen = tuple(
            "" if i not in scored else UNKNOWN if scored[i].score < threshold else labels.names[scored[i].best]
            for i in range(len(rows))
        )
        described = tuple(
            Description(name, chosen[i], status=f"failed: {lost[i]}" if i in lost else "ok")
            for i, name in enumerate(names)
        )
        return Run(
            rows,
            described,
            vectors,
            gene_report=self.tokenizer(source).report.as_dict(),
            settings=self.settings_of(
                source, alpha=how.alpha, rerank=how.rerank, threshold=threshold, template=template,
                definitions=labels.has_definitions,
                num_matched=sum(one.num_matched for one in scored.values()),
            ),
            labels=labelled_scores(labels, chosen, scored),
        )  # fmt: skip

    def encode_labels(self, labels: Labels, template: str = TEMPLATE) -> TextStates:
        """Encode the texts of labels; errors as :meth:`encode_texts`."""
        return self.encode_texts(label_texts(labels, template))

    def encode_texts(self, texts: Sequence[str]) -> TextStates:
        """Encode texts.

        Raises
        ------
        BundleError
            When the bundle has no texts.
        UsageError
            For a text beyond the encoder's positions.
        """
        shape = self.shape.text
        if shape is None:
            raise BundleError(f"the bundle {self.bundle.name} has no texts; use embed, or choose a LangCell bundle.")
        tokens = [np.array(one.ids, np.int64) for one in self.bundle.tokenizer.encode_batch(list(texts))]
        for text, ids in zip(texts, tokens, strict=True):
            if len(ids) > shape.max_positions:
                raise UsageError(
                    f"the text {text[:40]!r}... has {len(ids)} tokens and the model takes {shape.max_positions}; "
                    "shorten it."
                )
        return self.runtime.encode_texts(tokens)

    def settings_of(self, source: CellSource, **more: object) -> dict[str, object]:
        """Return what a result depends on, with more entries."""
        return settings_of(self.bundle, self.device, source, **{"sampling": "none", **more})

    def _encoded(
        self,
        source: CellSource,
        rows: Rows,
        lost: dict[int, str],
        progress: Progress | None,
        *,
        keeps_states: bool = False,
    ) -> Iterator[tuple[int, CellState]]:
        """Give the place and state of every cell that can be encoded; why others cannot goes into `lost`."""
        place_of = {row: place for place, row in enumerate(rows.tolist())}
        encoded = set[int]()
        for batch in self.tokenizer(source).batches(rows):
            lost |= {place_of[row]: why for row, why in batch.failures}
            states = self.runtime.encode_cells(map(batch.cell, range(len(batch.rows))), keeps_states=keeps_states)
            places = [place_of[row] for row in batch.rows.tolist()]
            try:
                for place, state in zip(places, states, strict=True):
                    yield place, state
                    encoded.add(place)
                    if progress:
                        progress(len(encoded | lost.keys()), len(rows), 0)
            except BackendError as error:
                _give_up(error, lost, encoded, len(rows))
                return

    def matching(self, cell: CellState, texts: TextStates) -> Callable[[npt.NDArray[np.int64]], Floats]:
        """Return what tells how probably some of the texts, by their places, fit a cell that has its states."""
        return lambda chosen: self.runtime.match(cell, texts, chosen)


def _give_up(error: BackendError, lost: dict[int, str], done: Container[int], num_cells: int) -> None:
    """Say of every cell that is not done why it is lost; raise the error again where none is done."""
    left = {place: str(error).removesuffix(".") for place in range(num_cells) if place not in done}
    if len(left) == num_cells:
        raise error
    for place, why in left.items():
        lost.setdefault(place, why)


def label_texts(labels: Labels, template: str = TEMPLATE) -> list[str]:
    """Return the text of every label.

    Raises
    ------
    UsageError
        When the template names something else than ``{name}`` and ``{definition}``, or leaves the name out.
    """
    definitions = labels.definitions or ("",) * len(labels.names)
    if "{name}" not in template:
        raise UsageError(f"the template {template!r} has no {{name}}; put it where the label belongs.")
    try:
        return [
            template.format(name=name, definition=definition).replace(". ;", ";")
            for name, definition in zip(labels.names, definitions, strict=True)
        ]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UsageError(
            f"the template {template!r} cannot be filled ({error}); it may hold {{name}} and {{definition}}."
        ) from error


def labelled_scores(labels: Labels, chosen: tuple[str, ...], scored: dict[int, LabelScores]) -> Labelled:
    """Return the chosen label of every cell with the scores that it was chosen by, of cells by their place."""
    none = np.full(len(labels.names), np.nan, np.float32)
    if all(one.every is not None for one in scored.values()):
        every = [none if i not in scored else scored[i].every for i in range(len(chosen))]
        return Labelled.of_scores(labels, chosen, np.stack([none if one is None else one for one in every]))
    score = np.array([scored[i].score if i in scored else np.nan for i in range(len(chosen))], np.float32)
    return Labelled(labels, chosen, score)


def _chosen(source: CellSource, rows: Rows | None) -> Rows:
    if rows is None:
        return np.arange(source.n_cells)
    return np.array(list(dict.fromkeys(np.asarray(rows).tolist())), np.int64)


def _names(source: CellSource, rows: Rows) -> tuple[str, ...]:
    return tuple(str(source.obs_names[row]) for row in rows)
