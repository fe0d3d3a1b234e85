"""Labels as a model that reads sentences writes them: a trie over the tokens of whole answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tokenizers import Tokenizer

from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.errors import UsageError
from cellscribe.engine.labels import twice
from cellscribe.engine.sentences.frame import Frame


def trie_of(
    tokenizer: Tokenizer, labels: Sequence[str], signs: Collection[int], end_id: int, gap: str, frame: Frame
) -> LabelTrie:
    """Return the trie of labels, each closed by `end_id`; see :meth:`TextModel.label_trie`.

    `signs` are tokens of a meaning of their own, which no label may hold.
    """
    named = [one.strip() for one in labels]
    if problem := twice(named):
        raise UsageError(problem)
    if not all(named):
        raise UsageError("the label '' is empty; leave it out.")
    ids = [tokenizer.encode(frame.written(one, gap), add_special_tokens=False).ids for one in named]
    bad = next((one for one, mine in zip(named, ids, strict=True) if not set(signs).isdisjoint(mine)), None)
    if bad is not None:
        raise UsageError(f"the label {bad!r} holds a token that is no text to the model but a sign; rename it.")
    return LabelTrie(named, ids, end_id)
