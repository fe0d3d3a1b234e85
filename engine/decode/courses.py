"""The course that a text takes through a trie of labels: straight to the best one, or past all of them.

A :class:`Walk` takes the best of the tokens that may follow, again and again. A :class:`Survey` has the model choose at
every node of the trie, so that every label gets its probability; what the cache holds behind the prompt is taken back
to where a branch begins and written over by the next one, so that no token runs twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.decode.labels import LabelTrie

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Move:
    """What follows from the logits after a run.

    Parameters
    ----------
    written
        Tokens of the text, each with its natural log-probability; those that had to follow have 0.
    fed
        Tokens to run next.
    known
        How many tokens behind the prompt are kept in the cache before those run; None for all.
    failed
        Whether the logits are not finite.
    label_logprobs
        Of all labels, float32 [L], with the last tokens of a survey.
    """

    written: tuple[tuple[int, float], ...] = ()
    fed: tuple[int, ...] = ()
    known: int | None = None
    failed: bool = False
    label_logprobs: Floats | None = None


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

    def start(self) -> Move:
        """Go as far as nothing has to be chosen."""
        tokens, self.node = self.trie.forced(self.node)
        return Move(tuple((token, 0.0) for token in tokens), tuple(tokens))

    def choose(self, logits: Floats) -> Move:
        """Take the best of the tokens that may follow, and what must follow it.

        The first token's log-probability is that among the tokens allowed.

        Parameters
        ----------
        logits
            Of all tokens [V].
        """
        allowed, logprobs = _among(self.trie, self.node, logits)
        if logprobs is None:
            return Move(failed=True)
        best = int(logprobs.argmax())
        token = int(allowed[best])
        more, self.node = self.trie.forced(self.trie.follow(self.node, token))
        return Move(((token, float(logprobs[best])), *((one, 0.0) for one in more)), (token, *more))


@dataclass
class Survey:
    """Which nodes of a trie one text has been to, and the log-probabilities of the labels met so far."""

    trie: LabelTrie
    at: int = 0
    has_ended: bool = False
    label_logprobs: Floats = field(init=False)
    _to_node: dict[int, float] = field(default_factory=dict)  # log-probability of getting there

    def __post_init__(self) -> None:
        self.label_logprobs = np.zeros(len(self.trie.labels), np.float32)

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.trie.labels[int(self.label_logprobs.argmax())]

    def start(self) -> Move:
        """Ask at the first node; a label that is the only one is written at once."""
        if not self.trie.visits:
            return self._end()
        self._to_node[self.trie.visits[0].node] = 0.0
        return Move(fed=self.trie.visits[0].tokens)

    def choose(self, logits: Floats) -> Move:
        """Note what the model thinks of the branches of this node, from logits [V], and go to the next."""
        node = self.trie.visits[self.at].node
        allowed, logprobs = _among(self.trie, node, logits)
        if logprobs is None:
            return Move(failed=True)
        for token, logprob in zip(allowed.tolist(), logprobs.tolist(), strict=True):
            _, child = self.trie.forced(self.trie.follow(node, token))
            self._to_node[child] = self._to_node[node] + logprob
            if (label := self.trie.label_at(child)) >= 0:
                self.label_logprobs[label] = self._to_node[child]
        self.at += 1
        if self.at == len(self.trie.visits):
            return self._end()
        following = self.trie.visits[self.at]
        return Move(fed=following.tokens, known=following.known)

    def _end(self) -> Move:
        """Write the best label, whose first token stands for its log-probability."""
        self.has_ended = True
        best = int(self.label_logprobs.argmax())
        first, *others = self.trie.sequences[best]
        written = ((first, float(self.label_logprobs[best])), *((one, 0.0) for one in others))
        return Move(written, label_logprobs=self.label_logprobs)


Course = Walk | Survey


def _among(trie: LabelTrie, node: int, logits: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64] | None]:
    """Return the tokens that may follow and their log-probabilities among each other; None where one is not finite."""
    allowed = trie.allowed(node)
    mine = logits[allowed].astype(np.float64)
    if not np.isfinite(mine).all():
        return allowed, None
    return allowed, mine - np.logaddexp.reduce(mine)
