"""Labels inside of sentences: what a model that answers in words has decided."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cellscribe.engine.instruct.denials import is_denied


def label_in(text: str, labels: Sequence[str]) -> str:
    """Return the label that a text names, "" where it names none or several.

    Letters' case, the number of blanks, and a hyphen for a blank count nothing. A name inside of a longer one of the
    list is not counted where the longer one stands ("CD8 T cell" names no "T cell"), nor is one that is denied,
    doubted or asked (:func:`cellscribe.engine.instruct.denials.is_denied`: "not a T cell", "neither a B cell nor a T
    cell", "T cells are ruled out", "Is it a T cell?"). Words before a name that are in no label are taken for detail:
    an "activated T cell" is a "T cell", and a "non-classical monocyte" is a "monocyte".
    """
    found = {one: _places(text, one) for one in labels}
    longest_first = sorted((one for one in labels if found[one]), key=lambda one: -len(one))
    taken: list[range] = []
    named: list[str] = []
    for label in longest_first:
        free = [
            place for place in found[label] if not any(place.start in one and place.stop - 1 in one for one in taken)
        ]
        taken += free
        if any(not is_denied(text, place) for place in free):
            named.append(label)
    return named[0] if len(named) == 1 else ""


def _places(text: str, label: str) -> list[range]:
    """Where a label stands as words of its own; a plural counts."""
    words = r"[\s-]+".join(re.escape(one) for one in re.split(r"[\s-]+", label) if one)
    return [range(*one.span()) for one in re.finditer(rf"(?<![\w-])(?<!\bnon\s){words}s?(?!\w)", text, re.IGNORECASE)]
