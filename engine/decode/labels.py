"""Answers restricted to a list of labels: a trie over their tokens.

Where only one token can follow, it is written without asking the model; where several can, the model chooses among
them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import UsageError

Ints = npt.NDArray[np.int64]


@dataclass
class _Node:
    children: dict[int, int] = field(default_factory=dict)  # token -> node
    label: int = -1  # which label ends here


@dataclass(frozen=True)
class Visit:
    """A node at which the model has to choose: `tokens` lead there from the first `known` tokens behind the prompt."""

    node: int
    known: int
    tokens: tuple[int, ...]


class LabelTrie:
    """Token sequences of labels, each closed by an end token.

    A model that ends texts in several ways is asked for the first of its end tokens alone. Where a label goes on from
    another ("T cell", "T cell, CD4"), what it gives to its other end tokens counts for neither.

    Parameters
    ----------
    labels
        Names, no two alike and none empty.
    token_ids
        Tokens of each label as they would follow the prompt, without the end token.
    eos_id
        The token that ends a text.

    Raises
    ------
    UsageError
        When there are no labels, two are alike or have the same tokens, or one has none.
    """

    def __init__(self, labels: Sequence[str], token_ids: Sequence[Sequence[int]], eos_id: int) -> None:
        self.labels, self.eos_id = tuple(labels), eos_id
        if not self.labels:
            raise UsageError("there are no labels; give one a line.")
        self._nodes = [_Node()]
        self.sequences = tuple((*map(int, ids), eos_id) for ids in token_ids)
        for i, sequence in enumerate(self.sequences):
            if len(sequence) == 1:
                raise UsageError(f"the label {self.labels[i]!r} is empty; leave it out.")
            self._add(i, sequence)

    def _add(self, label: int, sequence: Sequence[int]) -> None:
        node = 0
        for token in sequence:
            following = self._nodes[node].children
            if token not in following:
                following[token] = len(self._nodes)
                self._nodes.append(_Node())
            node = following[token]
        other = self._nodes[node].label
        if other >= 0:
            raise UsageError(
                f"the labels {self.labels[other]!r} and {self.labels[label]!r} are the same to the model; keep one."
            )
        self._nodes[node].label = label

    def allowed(self, node: int) -> Ints:
        """Return the tokens that may follow, rising, int64."""
        return np.array(sorted(self._nodes[node].children), dtype=np.int64)

    def follow(self, node: int, token: int) -> int:
        """Return the node that a token leads to."""
        return self._nodes[node].children[token]

    def forced(self, node: int) -> tuple[list[int], int]:
        """Return the tokens that must follow, one after the other, and the node that they lead to."""
        tokens: list[int] = []
        while len(self._nodes[node].children) == 1:
            ((token, node),) = self._nodes[node].children.items()
            tokens.append(token)
        return tokens, node

    def named(self, token_ids: Sequence[int]) -> str:
        """Return the label that tokens spell, with or without the end token; "" where they spell none."""
        node = 0
        for token in token_ids:
            node = self._nodes[node].children.get(int(token), -1)
            if node < 0:
                return ""
        label = self.label_at(self._nodes[node].children.get(self.eos_id, node))
        return self.labels[label] if label >= 0 else ""

    def label_at(self, node: int) -> int:
        """Return the label that ends at a node, or -1."""
        return self._nodes[node].label

    @property
    def num_choices(self) -> int:
        """Nodes at which the model has to choose."""
        return sum(len(node.children) > 1 for node in self._nodes)

    @cached_property
    def visits(self) -> tuple[Visit, ...]:
        """Every node at which the model has to choose, each before those below it; none where there is one label."""
        found: list[Visit] = []
        open_ = [(0, list[int](), 0)]  # tokens behind the prompt that are known, those to run, the node they lead to
        while open_:
            known, tokens, node = open_.pop()
            more, node = self.forced(node)
            if self.label_at(node) >= 0:
                continue
            tokens += more
            found.append(Visit(node, known, tuple(tokens)))
            below = sorted(self._nodes[node].children.items(), reverse=True)
            open_ += [(known + len(tokens), [token], child) for token, child in below]
        return tuple(found)
