"""Characters that a bundle's tokenizer does not know: one sign stands for all of them, and the model cannot tell them.

A T5 reads no Greek letters and no braces, which its makers left out of what it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from cellscribe.engine.decode.texts import decode
from cellscribe.engine.errors import UsageError

UNKNOWN = "<unk>"
_SHOWN = 5  # parts that a note names
_MEND = "spell it out, as gamma delta for γδ"


def unread(tokenizer: Tokenizer, text: str) -> tuple[str, ...]:
    """Return the parts of a text that no token stands for, each once."""
    found, unknown = tokenizer.encode(text, add_special_tokens=False), tokenizer.token_to_id(UNKNOWN)
    places = (place for one, place in zip(found.ids, found.offsets, strict=True) if one == unknown)
    return tuple(dict.fromkeys(text[start:stop].strip() for start, stop in places))


def check_told_apart(tokenizer: Tokenizer, labels: Iterable[str], *, in_words: bool = False) -> None:
    """Raise UsageError for two labels that differ in what the model cannot read alone.

    With `in_words` they are looked for in what the model writes, where such characters are nothing: "γδ T cell" is
    a "T cell" there.
    """
    seen: dict[object, str] = {}
    for label in labels:
        ids = tokenizer.encode(label, add_special_tokens=False).ids
        other = seen.setdefault(decode(tokenizer, ids) if in_words else tuple(ids), label)
        parts = unread(tokenizer, other) + unread(tokenizer, label)
        if other != label and parts:
            raise UsageError(
                f"the labels {other!r} and {label!r} are the same to the model, which cannot read "
                f"{_listed(map(repr, parts))}; {_MEND}."
            )


def unread_note(tokenizer: Tokenizer, prompts: Mapping[str, npt.NDArray[np.int64]], labels: Iterable[str] = ()) -> str:
    """Say what of prompts (texts and their tokens) and labels the model cannot read; empty where it reads all.

    Raises
    ------
    UsageError
        For two prompts that differ in that alone.
    """
    in_labels = {part: f"{part!r} in {label!r}" for label in labels for part in unread(tokenizer, label)}
    asked = _told_apart(tokenizer, prompts)
    said = [_listed(in_labels.values())] if in_labels else []
    if more := [repr(part) for part in asked if part not in in_labels]:
        said.append(f"{_listed(more)} in what it is asked")
    if not said:
        return ""
    return (
        f"The model cannot read {' and '.join(said)}, and sees {UNKNOWN} there, as for every other character that it "
        f"does not know; {_MEND}."
    )


def _told_apart(tokenizer: Tokenizer, prompts: Mapping[str, npt.NDArray[np.int64]]) -> tuple[str, ...]:
    """Return what of prompts cannot be read, each part once; UsageError for two that differ in that alone."""
    unknown, seen = tokenizer.token_to_id(UNKNOWN), dict[bytes, tuple[str, ...]]()
    for text, tokens in prompts.items():
        if unknown is None or unknown not in tokens:
            continue
        parts = unread(tokenizer, text)
        other = seen.setdefault(tokens.tobytes(), parts)
        if other != parts:
            raise UsageError(
                "two of the instructions are the same to the model, which cannot read "
                f"{_listed(map(repr, other + parts))} in their values; {_MEND}."
            )
    return tuple(dict.fromkeys(part for parts in seen.values() for part in parts))


def _listed(parts: Iterable[str]) -> str:
    named = list(dict.fromkeys(parts))
    more = f" and {len(named) - _SHOWN:,} more" if len(named) > _SHOWN else ""
    return ", ".join(named[:_SHOWN]) + more
