"""A bundle that follows instructions on a device, applied to opened cells: what API and command line are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.choose import choose_backend
from cellscribe.engine.backends.instruct import EncoderPrompt, InstructBackend, instruct_shapes
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellSource
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.decode.scheduler import Text, TextRequest
from cellscribe.engine.decode.texts import decode
from cellscribe.engine.errors import BackendError, UsageError
from cellscribe.engine.instruct.asking import AskSettings, instructions_for
from cellscribe.engine.instruct.cells import InstructCells
from cellscribe.engine.instruct.fields import check_labels
from cellscribe.engine.instruct.prompts import PromptEncoder
from cellscribe.engine.instruct.templates import TASKS, Instructions, packaged_instructions, read_instructions
from cellscribe.engine.instruct.unread import check_told_apart, unread_note
from cellscribe.engine.instruct.writer import Asked, write_answers
from cellscribe.engine.keyed import cell_key
from cellscribe.engine.labels import twice
from cellscribe.engine.provenance import settings_of
from cellscribe.engine.sentences.templates import known_task, own_tasks
from cellscribe.engine.text_types import Answer, cut_note
from cellscribe.engine.text_writer import TextOptions
from cellscribe.engine.types import Sampling

Rows = npt.NDArray[np.int64]
Progress = Callable[[int, int, int], None]  # texts done, texts in all, tokens so far

MAX_SLOTS = 512


@dataclass
class InstructModel:
    """One bundle on one device.

    Parameters
    ----------
    bundle
        An opened bundle of the family instructcell.
    backend, plans
        What runs it, and a folder of TensorRT plans (:func:`cellscribe.engine.backends.choose.choose_backend`).
    templates
        A file of instructions (:func:`cellscribe.engine.instruct.templates.read_instructions`) in place of ours;
        it must have some for `template_task` (None: for one of our tasks), and a list without task is for that one, or
        for the task that its fields tell.

    Attributes
    ----------
    notice
        Sentences about the last answers that are no failures (fewer slots than asked for, answers that were cut off);
        empty when there are none.
    """

    bundle: Bundle
    threads: int | None = None
    backend: str = "auto"
    templates: Path | None = None
    plans: Path | None = None
    template_task: str | None = None
    notice: str = field(default="", init=False)
    _cells: tuple[CellSource, InstructCells] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.shapes = instruct_shapes(self.bundle)
        given = {} if self.templates is None else read_instructions(self.templates, self.template_task)
        self._tasks = packaged_instructions() | given
        self._remark = own_tasks((one for one in given if one != self.template_task), TASKS)
        self.backend_choice = choose_backend(self.bundle, self.backend, threads=self.threads, plans=self.plans)
        self.runtime = cast(InstructBackend, self.backend_choice.backend)
        self.prompts = PromptEncoder(self.bundle.tokenizer, self.shapes.spec, self.shapes.tower.n_queries)

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return self.runtime.device

    @property
    def genes(self) -> tuple[str, ...]:
        """The genes that are read and written, in the model's order."""
        return self.bundle.vocabulary.input_genes or ()

    def task(self, name: str) -> Instructions:
        """Return the instructions of a task; UsageError for one that is not known."""
        return known_task(self._tasks, name)

    def cells(self, source: CellSource) -> InstructCells:
        """Match a source's genes, once."""
        if self._cells is None or self._cells[0] is not source:
            self._cells = (source, InstructCells(source, self.genes, self.shapes.spec.target_sum))
        return self._cells[1]

    def label_trie(self, labels: Sequence[str]) -> LabelTrie:
        """Return labels as the model writes them; UsageError for those that are alike, or hold what is no word."""
        named = [one.strip() for one in labels]
        if problem := twice(named):
            raise UsageError(problem)
        check_labels(named, self.prompts.cell)
        check_told_apart(self.bundle.tokenizer, named)
        ids = [self.bundle.tokenizer.encode(one, add_special_tokens=False).ids for one in named]
        ends = [one for one in self.shapes.spec.eos_token_ids if one != self.shapes.spec.signal_id]
        return LabelTrie(named, ids, ends[0])

    def about_cells(
        self,
        source: CellSource,
        asked: AskSettings | None = None,
        *,
        rows: Rows | None = None,
        labels: Sequence[str] | None = None,
        choices: Sequence[str] | None = None,
        all_labels: bool = False,
        sampling: Sampling | None = None,
        max_new_tokens: int = 64,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> tuple[Answer, ...]:
        """Ask about every cell.

        Parameters
        ----------
        asked
            What; None asks for the cell type.
        rows
            Which cells, int64 [N]; None takes all.
        labels
            What answers must be one of; None leaves the model free.
        choices
            What ``{choices}`` of an instruction stands for; None takes the labels.
        all_labels
            Ask for the log-probability of every label, and answer with the best.
        batch_size
            Cells in work at the same time. It changes speed, never answers.

        Raises
        ------
        UsageError
            For an unknown task, a value that an instruction lacks, or labels that are alike or hold a token that is no
            word, or differ in what the model cannot read alone (:mod:`cellscribe.engine.instruct.unread`).
        InputError
            When none of the model's genes or a row is there, or values cannot be read.
        BackendError
            When the device fails before there is an answer.
        """
        rows = source.checked_rows(rows)
        names = [str(source.obs_names[row]) for row in rows]
        if len(np.unique(rows)) < len(rows):
            raise UsageError("rows names a cell twice; name each once.")
        if choices is not None and labels is None:
            check_labels(choices, self.prompts.cell)
            check_told_apart(self.bundle.tokenizer, choices, in_words=True)
        options = self.options(labels, all_labels, sampling, max_new_tokens, batch_size)
        lost: dict[int, str] = {}
        texts = self.instructions(source, rows, asked or AskSettings(), choices or labels, lost)
        prompts = {
            place: self.prompts.encode(text, has_cell=True) for place, text in enumerate(texts) if place not in lost
        }
        wanted = self._asked(source, rows, names, prompts, lost)
        read = {texts[place]: one.tokens for place, one in prompts.items()}
        unread = unread_note(self.bundle.tokenizer, read, labels or choices or ())
        longest = max(map(len, read.values()), default=1)
        answers = self.answers(names, wanted, longest, options, lost, progress)
        self.notice = " ".join(one for one in (self.cells(source).warning, unread, self.notice) if one)
        return answers

    def about_prompts(
        self,
        names: Sequence[str],
        texts: Sequence[str],
        *,
        sampling: Sampling | None = None,
        max_new_tokens: int = 64,
        batch_size: int = 32,
        on_text: Callable[[int, Text], None] | None = None,
        progress: Progress | None = None,
    ) -> tuple[Answer, ...]:
        """Answer framed texts that name no cell; `on_text` gets each with its place, and a condition if it has one."""
        options = self.options(None, False, sampling, max_new_tokens, batch_size)
        prompts = [self.prompts.encode(text, has_cell=False) for text in texts]
        asked = (Asked(i, cell_key(name), one) for i, (name, one) in enumerate(zip(names, prompts, strict=True)))
        read = {text: one.tokens for text, one in zip(texts, prompts, strict=True)}
        unread = unread_note(self.bundle.tokenizer, read)
        answers = self.answers(names, asked, max(map(len, read.values()), default=0), options, {}, progress, on_text)
        self.notice = " ".join(one for one in (unread, self.notice) if one)
        return answers

    def instructions(
        self,
        source: CellSource,
        rows: Rows,
        asked: AskSettings,
        choices: Sequence[str] | None = None,
        lost: dict[int, str] | None = None,
    ) -> list[str]:
        """Return the framed instruction for every cell (:func:`cellscribe.engine.instruct.asking.instructions_for`)."""
        return instructions_for(source, rows, asked, self.task(asked.task), self.prompts.cell, choices, lost)

    def settings_of(self, source: CellSource | None, **more: object) -> dict[str, object]:
        """Return what a result depends on, with more or other entries; ``templates`` is the name of a user's file."""
        file = {} if self.templates is None else {"templates": self.templates.name}
        return settings_of(self.bundle, self.device, source, **file, **more)

    def options(
        self,
        labels: Sequence[str] | None,
        all_labels: bool,
        sampling: Sampling | None,
        max_new_tokens: int,
        batch_size: int,
    ) -> TextOptions:
        """Return how answers are written; UsageError for what cannot be."""
        if not 1 <= batch_size <= MAX_SLOTS:
            raise UsageError(f"batch_size is {batch_size}; choose a whole number from 1 to {MAX_SLOTS}.")
        if max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is {max_new_tokens}; choose at least 1.")
        trie = None if labels is None else self.label_trie(labels)
        ends = frozenset(self.shapes.spec.eos_token_ids)
        return TextOptions(sampling or Sampling(), max_new_tokens, batch_size, ends, trie, all_labels)

    def _asked(
        self,
        source: CellSource,
        rows: Rows,
        names: Sequence[str],
        prompts: Mapping[int, EncoderPrompt],
        lost: dict[int, str],
    ) -> Iterator[Asked]:
        """Read cells, and put their features into their prompts; why others cannot be read goes into `lost`."""
        place_of = {row: place for place, row in enumerate(rows.tolist())}
        for batch in self.cells(source).batches(rows[sorted(prompts)]):
            lost |= {place_of[row]: why for row, why in batch.failures}
            places = [place_of[row] for row in batch.rows.tolist()]
            for place, features in zip(places, self.runtime.read_cells(batch.cells), strict=True):
                yield Asked(place, cell_key(names[place]), replace(prompts[place], features=features))

    def answers(
        self,
        names: Sequence[str],
        asked: Iterable[Asked],
        longest: int,
        options: TextOptions,
        lost: dict[int, str],
        progress: Progress | None,
        on_text: Callable[[int, Text], None] | None = None,
    ) -> tuple[Answer, ...]:
        """Answer what is asked under these names, of `longest` tokens at most; `lost` says what fails, and why."""
        options = replace(options, num_slots=min(options.num_slots, max(1, len(names))))
        report = None if progress is None else lambda done, count: progress(done + len(lost), len(names), count)
        found, said = dict[int, Answer](), list[str]()
        try:
            for text in write_answers(
                self.runtime, self.shapes.spec, asked, longest, options, wants_signals=on_text is not None,
                progress=report, notice=said.append,
            ):  # fmt: skip
                place = text.request.index
                found[place] = self._answer(names[place], text)
                if on_text:
                    on_text(place, text)
        except BackendError as error:
            if not found:
                raise
            lost |= {i: str(error).removesuffix(".") for i in range(len(names)) if i not in found and i not in lost}
        note = cut_note(found.values(), options.max_new_tokens)
        self.notice = " ".join(one for one in (self._remark, *said, note) if one)
        return tuple(
            found[i] if i in found else Answer(name, "", (), float("nan"), "failed", f"failed: {lost[i]}")
            for i, name in enumerate(names)
        )

    def _answer(self, name: str, text: Text) -> Answer:
        if text.finish_reason == "failed":
            return Answer(name, "", (), float("nan"), "failed", "failed: the model's output is not finite")
        labels = text.request.labels if isinstance(text.request, TextRequest) else None
        written = decode(self.bundle.tokenizer, text.token_ids) if labels is None else labels.named(text.token_ids)
        total = float(np.sum(text.logprobs))
        ids = tuple(text.token_ids)
        return Answer(name, written, ids, total, text.finish_reason, label_logprobs=text.label_logprobs)
