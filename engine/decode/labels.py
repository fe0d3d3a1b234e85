"""Answers restricted to a list of labels: a trie over their tokens.

Where only one token can follow, it is written without asking the model; where several can, the model chooses among
them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import UsageError

Ints = npt.NDArray[np.int64]


@dataclass
class _Node:
    children: dict[int, int] = field(default_factory=dict)  # token -> node
    label: int = -1  # which label ends here


class LabelTrie:
    """Token sequences of labels, each closed by an end token.

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

    def label_at(self, node: int) -> int:
        """Return the label that ends at a node, or -1."""
        return self._nodes[node].label

    @property
    def num_choices(self) -> int:
        """Nodes at which the model has to choose."""
        return sum(len(node.children) > 1 for node in self._nodes)


@dataclass
class Walk:
    """Where one text stands in a trie."""

    trie: LabelTrie
    node: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether a label is complete."""
        return self.trie.label_at(self.node) >= 0

    @property
    def label(self) -> str:
        """The label that is complete."""
        return self.trie.labels[self.trie.label_at(self.node)]

    def start(self) -> list[int]:
        """Go as far as nothing has to be chosen; the tokens on the way."""
        tokens, self.node = self.trie.forced(self.node)
        return tokens

    def choose(self, logits: npt.NDArray[np.float32]) -> tuple[list[int], float]:
        """Take the best of the tokens that may follow, and what must follow it.

        Parameters
        ----------
        logits
            Of all tokens [V].

        Returns
        -------
        The tokens, and the natural logarithm of the first one's probability among those allowed; NaN where its logit
        is not finite, and then nothing is taken.
        """
        allowed = self.trie.allowed(self.node)
        mine = logits[allowed].astype(np.float64)
        if not np.isfinite(mine).all():
            return [], float("nan")
        best = int(mine.argmax())
        token = int(allowed[best])
        self.node = self.trie.follow(self.node, token)
        more, self.node = self.trie.forced(self.node)
        return [token, *more], float(mine[best] - np.logaddexp.reduce(mine))
