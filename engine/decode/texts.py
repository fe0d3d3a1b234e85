"""From token ids to text, whole or as it grows."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

_INCOMPLETE = "\ufffd"  # bytes of a character whose rest is still to come


def decode(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """Return the text of token ids, without special tokens and without a character that was cut off at the end."""
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=True)
    return text.strip().rstrip(_INCOMPLETE).strip()


class GrowingText:
    """Turns tokens into the text that each adds."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = ""

    def add(self, token_id: int) -> str:
        """Return what this token adds; empty while a character is incomplete."""
        self._ids.append(token_id)
        text: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        text = text.lstrip()
        if text.endswith(_INCOMPLETE) or not text.startswith(self._shown):
            return ""
        added, self._shown = text[len(self._shown) :], text
        return added
