"""Text on its way to a terminal or a page: made harmless, with the genes it names marked."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Control characters move the cursor or recolour a terminal; bidirectional overrides show text in another order.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: object) -> str:
    """Return `text` with control characters and direction overrides replaced, tabs and line ends kept."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))


def clipped(text: str, most: int = 60) -> str:
    """Return `text`, of a long one its beginning."""
    return text if len(text) <= most else f"{text[: most - 4].rstrip()} ..."


def without_label(label: str, text: object) -> str:
    """Return `text` without a leading "Label: ", for places that show the label themselves."""
    whole = str(text)
    head, _, rest = whole.partition(": ")
    return rest if rest and head.lower() == label.lower() else whole


def gene_spans(text: str, genes: Iterable[str]) -> list[tuple[str, bool]]:
    """Split `text` where it names one of `genes`.

    Returns
    -------
    Pieces that join to `text`, each with whether it is a gene's name standing as a word of its own, as
    :func:`cellscribe.engine.decode.evidence.named_genes` counts it: ``HLA-A`` is not found in "HLA-A2", nor ``HLA``
    in "HLA-A", nor ``REST`` in "at rest".
    """
    names = sorted({name for name in genes if name}, key=len, reverse=True)
    if not names:
        return [(text, False)] if text else []
    word = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?!\w|-\w)")
    parts = word.split(text)
    return [(part, bool(place % 2)) for place, part in enumerate(parts) if part]
