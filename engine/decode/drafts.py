"""Guessing the next tokens of a text from the texts of the same run, which resemble each other.

A guess costs little where a step is bound by reading weights, and is kept only where it is what the model chooses: a
backend that gives the same bits for tokens one by one and several at once writes the same texts with it as without
(speculative decoding with a lookup instead of a draft model: Leviathan et al., 2023; Saxena, 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

_CONTEXT = 3  # tokens that the next one is looked up by
_BEGINNING = (-1,) * _CONTEXT  # stands for the prompt, which is the same for all
_MOST_ENTRIES = 1 << 18  # some tens of megabytes; texts about other cells teach little new by then
_MEMORY = 0.9  # how much of the rate of success is kept at every try
_WORTHWHILE = 0.4  # below it a guess costs more than it saves
_PROBE_EVERY = 16  # tries that are left out between two when guesses fail


class Drafts:
    """What followed what, in all texts of a run, and how well guesses have done lately."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], int] = {}
        self._contexts: dict[int, tuple[int, ...]] = {}
        self._rate = 1.0
        self._skipped = 0

    @property
    def rate(self) -> float:
        """Share of guesses that were right lately."""
        return self._rate

    def begin(self, slot: int) -> None:
        """Start another text in a slot."""
        self._contexts[slot] = _BEGINNING

    def add(self, slot: int, token: int) -> None:
        """Note the next token of a slot's text; one that stands for no token (below 0) teaches nothing."""
        if token < 0:
            return
        context = self._contexts[slot]
        if len(self._next) < _MOST_ENTRIES or context in self._next:
            self._next[context] = token
        self._contexts[slot] = (*context[1:], token)

    def guess(self, slot: int, most: int) -> list[int]:
        """Guess up to `most` tokens of a slot's text."""
        context, found = self._contexts[slot], list[int]()
        while len(found) < most:
            token = self._next.get(context)
            if token is None:
                break
            found.append(token)
            context = (*context[1:], token)
        return found

    def is_worthwhile(self) -> bool:
        """Whether to guess now: always while guesses succeed, now and then otherwise."""
        if self._rate >= _WORTHWHILE:
            return True
        self._skipped = (self._skipped + 1) % _PROBE_EVERY
        return self._skipped == 0

    def learn(self, guessed: Sequence[int], right: int, *, has_ended: bool = False) -> None:
        """Note that of the tokens guessed for a text the first `right` were what the model chose.

        Where the text has ended with the last of them, the next one was neither right nor wrong.
        """
        for i in range(min(right + (not has_ended), len(guessed))):
            self._rate = _MEMORY * self._rate + (1 - _MEMORY) * (i < right)
