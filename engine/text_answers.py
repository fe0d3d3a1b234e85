"""What a model that reads sentences writes after prompts, as answers: white space, labels and frames seen to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellscribe.engine.backends.text import TextBackend
from cellscribe.engine.decode.scheduler import Text
from cellscribe.engine.decode.texts import decode
from cellscribe.engine.errors import UsageError
from cellscribe.engine.keyed import cell_key
from cellscribe.engine.sentences.frame import Frame
from cellscribe.engine.text_prompts import ENDED, Ended
from cellscribe.engine.text_types import Answer
from cellscribe.engine.text_writer import TextOptions, write_texts
from cellscribe.engine.types import Sampling

if TYPE_CHECKING:
    from cellscribe.engine.text_model import TextModel

Progress = Callable[[int, int, int], None]  # texts done, texts in all, tokens so far


@dataclass(frozen=True)
class Wishes:
    """How prompts are to be answered; see :meth:`TextModel.answers`."""

    labels: Sequence[str] | None
    all_labels: bool
    sampling: Sampling
    max_new_tokens: int
    batch_size: int
    progress: Progress | None
    mend: str
    frame: Frame

    def options(self, model: TextModel, gap: str) -> TextOptions:
        """Return how texts are written behind prompts that end in this white space."""
        trie = None if self.labels is None else model.label_trie(self.labels, gap or " ", self.frame)
        return TextOptions(self.sampling, self.max_new_tokens, self.batch_size, model.end_ids, trie, self.all_labels)


def answers_of(
    model: TextModel,
    backend: TextBackend,
    names: Sequence[str],
    texts: Sequence[str],
    lost: Mapping[int, str],
    wishes: Wishes,
) -> tuple[tuple[Answer, ...], list[str]]:
    """Answer prompts, and return what should be said of it; errors as of :meth:`TextModel.answers`."""
    ended = [Ended.of(one, wishes.labels is not None) for one in texts]
    options = {gap: wishes.options(model, gap) for gap in sorted({one.gap for one in ended} or {""})}
    longest = max(one.longest for one in options.values())
    if longest >= model.context:
        what = f"max_new_tokens is {wishes.max_new_tokens}"
        what = what if wishes.labels is None else f"a label has {longest} tokens"
        raise UsageError(f"{what}, and the context of {model.bundle.name} holds {model.context} in all; choose less.")
    failed = dict(lost)
    tokens = model.encode([one.text for one in ended])
    for i, one in enumerate(tokens):
        if len(one) + longest > model.context:
            sizes = f"its prompt of {len(one)} tokens and {longest} new ones"
            failed.setdefault(i, f"{sizes} exceed the context of {model.context}; {wishes.mend}")
    found: dict[int, Answer] = {}
    said: list[str] = []
    written = 0  # tokens of the gaps before
    for gap, option in options.items():
        kept = [i for i in range(len(names)) if i not in failed and ended[i].gap == gap]
        keys = [cell_key(names[i]) for i in kept]
        report = _counted(wishes.progress, len(failed) + len(found), len(names), written)
        for text in write_texts(backend, [tokens[i] for i in kept], keys, option, report, said.append):
            i = kept[text.request.index]
            found[i] = answer_of(model, names[i], text, wishes.frame)
            written += len(text.token_ids)
    answers = [found[i] if i in found else _failed(name, failed[i]) for i, name in enumerate(names)]
    return tuple(answers), [*([ENDED] if any(one.is_cut for one in ended) else []), *said[:1]]


def answer_of(model: TextModel, name: str, text: Text, frame: Frame) -> Answer:
    """Return a finished text as the answer of a name: what the frame leaves of it."""
    if text.finish_reason == "failed":
        return _failed(name, "the model's output is not finite")
    written, total = frame.value(decode(model.bundle.tokenizer, text.token_ids)), float(np.sum(text.logprobs))
    ids = tuple(text.token_ids)
    return Answer(name, written, ids, total, text.finish_reason, label_logprobs=text.label_logprobs)


def _failed(name: str, why: str) -> Answer:
    return Answer(name, "", (), float("nan"), "failed", f"failed: {why}")


def _counted(progress: Progress | None, done: int, total: int, tokens: int) -> Callable[[int, int], None] | None:
    """Return what tells of texts beside those that are done, and of tokens beside those of others."""
    return None if progress is None else lambda more, count: progress(done + more, total, tokens + count)
