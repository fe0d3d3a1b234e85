"""Label tries."""

from __future__ import annotations

import pytest

from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.errors import UsageError

EOS = 9
NAMES = ("B cell", "B cell, naive", "T cell", "monocyte")
IDS = ((1, 2), (1, 2, 3, 4), (5, 2), (6, 7, 8))


def test_every_node_is_visited_once_and_after_those_above() -> None:
    trie = LabelTrie(NAMES, IDS, EOS)
    assert trie.num_choices == 2
    assert [(one.known, one.tokens) for one in trie.visits] == [(0, ()), (0, (1, 2))]
    shared = LabelTrie(("a", "b", "c"), ((7, 1, 2), (7, 1, 3), (7, 4)), EOS)
    assert [(one.known, one.tokens) for one in shared.visits] == [(0, (7,)), (1, (1,))]
    assert LabelTrie(("T cell",), ((5, 2),), EOS).visits == ()


@pytest.mark.parametrize(
    ("labels", "ids", "said"),
    [((), (), "no labels"), (("a", "b"), ((1,), (1,)), "'a' and 'b' are the same"), (("",), ((),), "is empty")],
)
def test_labels_that_cannot_be_used(labels: tuple[str, ...], ids: tuple[tuple[int, ...], ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LabelTrie(labels, ids, EOS)


def test_tokens_are_told_by_their_label() -> None:
    trie = LabelTrie(NAMES, IDS, EOS)
    assert [trie.named(ids) for ids in IDS] == list(NAMES)
    assert trie.named((1, 2, EOS)) == "B cell"
    assert trie.named((1,)) == trie.named((6, 7)) == trie.named((8,)) == ""
