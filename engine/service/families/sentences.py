"""Bundles that read cells as sentences, for a service."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import UsageError
from cellscribe.engine.labels import Labelled
from cellscribe.engine.sentence_model import SentenceModel
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.known import checked_names, known_names
from cellscribe.engine.sentences.templates import ANNOTATION
from cellscribe.engine.sentences.words import words_and_line
from cellscribe.engine.service.cell_files import CellFile
from cellscribe.engine.service.families.base import (
    CellWish,
    Embedding,
    Item,
    Labelling,
    Question,
    ReadyCells,
    ReadyOrder,
    TextWork,
    Tick,
    Wish,
    Work,
    Written,
)
from cellscribe.engine.service.families.speaking import Speaker
from cellscribe.engine.text_annotate import check_scores, labelled_answers
from cellscribe.engine.text_cells import asked_cells, cell_order, cells_from
from cellscribe.engine.text_groups import question_prompts
from cellscribe.engine.text_model import LESS, NO_GENE
from cellscribe.engine.text_prompts import Ended
from cellscribe.engine.text_samples import sample_of
from cellscribe.engine.types import Sampling

_SENTENCE = "{cell_sentence}"


class Sentences:
    """The family c2s."""

    tasks: tuple[str, ...] = ("annotate", "embed", "generate", "chat")

    def __init__(self, model: SentenceModel) -> None:
        self._text, self.width, self.speaker = model.text, model.text.width, Speaker(model.text)
        self._lock = threading.Lock()

    def read(self, source: CellSource, rows: Sequence[int], wish: Wish, kept: dict[str, Any]) -> ReadyCells:
        """Make prompts of cells, as :meth:`SentenceModel.annotate`, ``ask`` and ``embed`` do."""
        work, genes = self._work(wish), self.genes(source, kept)
        checked_names(source, self._text.settings.organism)
        names, sentences = self._text.sentences(source, np.asarray(rows, np.int64))
        prompts = self._prompts(wish, names, sentences)
        if isinstance(work, TextWork):
            prompts = _ended(prompts, work.labels is not None)
        longest = self._longest(work)
        items = []
        for name, sentence, tokens in zip(names, sentences, self._text.encode(prompts), strict=True):
            failure = self._too_long(len(tokens), longest) if sentence else NO_GENE
            items.append(Item(name, tokens, failure, len(tokens)))
        return ReadyCells(items, work, genes)

    def genes(self, source: CellSource, kept: dict[str, Any]) -> dict[str, object]:
        """Return how many of a source's genes are known symbols."""
        del kept
        known = known_names(SentenceGenes.of_cells(source))
        return {"known": known.known, "unknown": known.total - known.known, "sentence": known.sentence()}

    def run(self, work: Work, items: Sequence[Item], tick: Tick) -> list[Any]:
        """Embed prompts."""
        assert isinstance(work, Embedding)  # texts are written in open slots
        good = [i for i, one in enumerate(items) if not one.failure]
        found: list[Any] = [np.full(self.width, np.nan, np.float32) for _ in items]
        prompts = [items[i].payload for i in good]
        for i, vector in zip(good, self._text.embed_prompts(prompts, lambda done: tick(done, 0)), strict=True):
            found[i] = vector
        return found

    def labelled(self, wish: Labelling, items: Sequence[Item], found: Sequence[Any]) -> tuple[list[str], Labelled]:
        """Return the status of every cell, and the labels."""
        described, labels = labelled_answers(found, wish.labels, wish.scores)
        return [one.status for one in described], labels

    def order(self, wish: CellWish) -> ReadyOrder:
        """Make the prompts of cells that are to be written."""
        sample_of(None, wish.cell_type, wish.tissue, None)  # of single cells, a prompt says no tissue
        asked = asked_cells(self._text, cell_order(wish.count, wish.cell_type), wish.sampling, wish.max_new_tokens)
        self._text.prompts.check("the cell type", wish.cell_type or "")
        work = TextWork(
            asked.sampling, asked.max_new_tokens, frame=self._text.frame(asked.order.task, asked.order.said)
        )
        self._longest(work)
        items = []
        for name, tokens in zip(asked.names, self._text.encode(_ended(asked.prompts, False)), strict=True):
            failure = self._too_long(len(tokens), asked.max_new_tokens)
            items.append(Item(name, tokens, failure, len(tokens)))
        return ReadyOrder(items, work, asked)

    def written(self, order: ReadyOrder, found: Sequence[Any], like: CellFile) -> Written:
        """Turn sentences into expression, by the genes of real cells and the line that fits them."""
        assert order.asked is not None
        with self._lock, like.lock:
            if "line" not in like.extras:
                like.extras["line"] = words_and_line(like.source)
            genes, line = like.extras["line"]
        cells, said, short = cells_from(self._text, order.asked, found, genes, line)
        return Written(cells, f"{said}. {short}".strip(), "log10(1 + x)")

    def _work(self, wish: Wish) -> Work:
        if isinstance(wish, Embedding):
            return wish
        if isinstance(wish, Question):
            return TextWork(wish.sampling, wish.max_new_tokens)
        check_scores(wish.labels is not None, wish.scores)
        if wish.labels is None:
            return TextWork(Sampling(), wish.max_new_tokens, frame=self._text.frame(ANNOTATION))
        return TextWork(Sampling(), wish.max_new_tokens, wish.labels.names, wish.scores, self._text.frame(ANNOTATION))

    def _longest(self, work: Work) -> int:
        """Return the most new tokens of a text; UsageError where the context has no room for them."""
        if not isinstance(work, TextWork):
            return 0
        longest = work.max_new_tokens
        if work.labels is not None:
            longest = max(map(len, self._text.label_trie(work.labels, frame=work.frame).sequences))
        if longest >= self._text.context:
            raise UsageError(
                f"{longest} new tokens are more than the context of {self._text.context} holds; ask for fewer, or give "
                "shorter labels."
            )
        return longest

    def _too_long(self, prompt_len: int, longest: int) -> str:
        """Say why a prompt does not fit; empty where it does."""
        context = self._text.context
        if prompt_len + longest <= context:
            return ""
        if not longest:
            return f"its prompt of {prompt_len} tokens exceeds the context of {context}; {LESS}"
        return f"its prompt of {prompt_len} tokens and {longest} new ones exceed the context of {context}; {LESS}"

    def _prompts(self, wish: Wish, names: Sequence[str], sentences: Sequence[str]) -> list[str]:
        if isinstance(wish, Question):
            return question_prompts(self._text, _own_words(wish.text), sentences)
        of = self._text.prompts.of_cell
        return [of(self._text.prompt_of(ANNOTATION, a), b) for a, b in zip(names, sentences, strict=True)]


def _own_words(text: str) -> str:
    """Return a user's question as one with fields: braces are read as they are, but for the cell's."""
    plain = text.replace(_SENTENCE, "{cell}").replace("{", "{{").replace("}", "}}")
    return plain.replace("{{cell}}", _SENTENCE)


def _ended(prompts: Sequence[str], has_labels: bool) -> list[str]:
    """Return prompts without the white space at their end that the offline way leaves out, too."""
    return [Ended.of(one, has_labels).text for one in prompts]
