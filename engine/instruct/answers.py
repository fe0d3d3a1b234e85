"""Labels inside of sentences: what a model that answers in words has decided."""

from __future__ import annotations

import re
from collections.abc import Sequence

# a denial, and at most three words of the same clause, before a label
_DENIED = re.compile(
    r"(?:\b(?:not|no|non|never|neither|nor|without|cannot|unlikely|rather than|instead of)\b|n['’]t\b)"
    r"(?:[\s-]+\w+){0,3}[\s-]*$",
    re.IGNORECASE,
)


def label_in(text: str, labels: Sequence[str]) -> str:
    """Return the label that a text names, "" where it names none or several.

    Letters' case, the number of blanks, and a hyphen for a blank count nothing. A name inside of a longer one of the
    list is not counted where the longer one stands ("CD8 T cell" names no "T cell"), nor is one that is denied ("not a
    T cell", "non-T cell"). Words before a name that are in no label are taken for detail: an "activated T cell" is a
    "T cell".
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
    words = r"[\s-]+".join(re.escape(one) for one in re.split(r"[\s-]+", label) if one)
    found = re.finditer(rf"(?<![\w-]){words}s?(?!\w)", text, re.IGNORECASE)
    return [range(*one.span()) for one in found if not _DENIED.search(text[: one.start()])]
