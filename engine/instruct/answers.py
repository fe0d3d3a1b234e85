"""Labels inside of sentences: what a model that answers in words has decided."""

from __future__ import annotations

import re
from collections.abc import Sequence


def label_in(text: str, labels: Sequence[str]) -> str:
    """Return the label that a text names, "" where it names none or several.

    Letters' case and the number of blanks count nothing; a name inside of a longer one that is there, too, is not
    counted: "CD8 T cell" names no "T cell".
    """
    found = {one: _places(text, one) for one in labels}
    longest_first = sorted((one for one in labels if found[one]), key=lambda one: -len(one))
    taken: list[range] = []
    named: list[str] = []
    for label in longest_first:
        free = [
            place for place in found[label] if not any(place.start in one and place.stop - 1 in one for one in taken)
        ]
        if free:
            named.append(label)
            taken += free
    return named[0] if len(named) == 1 else ""


def _places(text: str, label: str) -> list[range]:
    """Where a label stands as words of its own; a plural counts."""
    words = r"\s+".join(re.escape(one) for one in label.split())
    return [range(*one.span()) for one in re.finditer(rf"(?<!\w){words}s?(?!\w)", text, re.IGNORECASE)]
