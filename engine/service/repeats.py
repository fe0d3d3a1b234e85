"""Names that stand twice in one object of a JSON text: parsers keep the last in silence."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np

_QUOTE, _COLON, _SPACE = b'": '


def repeated_name(raw: bytes, num_names: int) -> str | None:
    """Return a name that stands twice in an object, None where there is none.

    Every name is followed by a colon, so that a text with no more colons than names were read repeats none; only where
    there are more, in names of cells or in earnest, it is read once more.

    Parameters
    ----------
    raw
        A valid JSON text.
    num_names
        Names that were read from it, in all objects together.
    """
    text = np.frombuffer(raw, np.uint8)
    is_colon = text == _COLON
    if np.count_nonzero(is_colon) == num_names:
        return None
    before = text[:-1]
    ends_name = is_colon[1:] & ((before == _QUOTE) | (before <= _SPACE))
    if np.count_nonzero(ends_name) == num_names:  # the other colons are inside of strings
        return None
    return _first_repeated(raw)


def _first_repeated(raw: bytes) -> str | None:
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        counts = Counter(name for name, _ in pairs)
        found.extend(name for name, count in counts.items() if count > 1)

    json.loads(raw.decode(), object_pairs_hook=look, parse_int=str, parse_float=str, strict=False)
    return found[0] if found else None
