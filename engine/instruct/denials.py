"""Which words of a sentence are denied or doubted: a search for words, made so that it rather denies too much."""

from __future__ import annotations

import re

_DENIAL = re.compile(
    r"\b(?:not|no|non|none|never|neither|nor|without|cannot|unlike|unlikely|hardly|barely|doubt\w*|unclear|unsure"
    r"|uncertain|lack(?:s|ed|ing)?|exclud\w+|except|reject\w*|against|absen(?:t|ce)|negative for|(?:anything|all) but"
    r"|(?:rather|other) than|instead of|rul(?:e|es|ed|ing) out|in(?:consistent|compatible) with"
    r"|(?:distinct|different|differs|differ) from)\b|n['’]t\b",
    re.IGNORECASE,
)
_NO_DENIAL = re.compile(r"\b(?:no|without(?: an?y?)?) doubts?\b|\bnot (?:only|just|merely)\b", re.IGNORECASE)
# What ends a clause, and with it a denial's reach; a comma does unless a list goes on behind it.
_END = re.compile(
    r"[;:!?)\n—–]|(?<!e\.g)(?<!i\.e)(?<!vs)\.(?=\s|$)|\s-\s|\b(?:but|however|though|although|yet|whereas|while|which"
    r"|thus|hence|therefore|(?<!not )(?:suggesting|indicating|implying))\b"
    r"|\b(?:and|so|as)\s+(?:it|this|that|they|these|is|are|i|we|must|the cell)\b",
    re.IGNORECASE,
)
_DETAIL = (
    r"(?!(?:an?|the|its?|this|that|these|they|i|we|my|is|are|was|were|be|maybe|perhaps|rather|instead|most|more|best)\b"
    r"|\w+(?:ly|ing)\b)[\w+/-]+\s+"
)
_LISTED = re.compile(
    rf"\s*(?:(?:and|or|nor|neither|not)\s+)*(?:(?:an?|the|any)\s+)?(?:{_DETAIL}){{0,4}}(?:of\s+(?:an?\s+)?)?",
    re.IGNORECASE,
)
_DENIED_BEHIND = re.compile(
    r"\s+(?:(?:type|identity|label|marker|signature|feature)s?\s+)?"
    r"(?:(?:is|are|was|were|seems?|appears?|looks?|can|could|may|might)\s+(?:(?:be|very|highly|also|all)\s+)*"
    r"(?:not|unlikely|improbable|impossible|absent|missing|excluded|rejected|ruled out)"
    r"|(?:is|are|was|were)n['’]t|can(?:not|['’]t) be)\b",
    re.IGNORECASE,
)


def is_denied(text: str, place: range) -> bool:
    """Say whether words of a text are denied or doubted: before them, as far as a clause and its lists go, or behind.

    Examples
    --------
    >>> is_denied("neither a monocyte, macrophage, nor a T cell", range(38, 44))
    True
    >>> is_denied("not a B cell, so this is a T cell", range(27, 33))
    False
    """
    before = _NO_DENIAL.sub(lambda one: " " * len(one[0]), text[: place.start])
    if any(_reaches(before[one.end() :]) for one in _DENIAL.finditer(before)):
        return True
    return _DENIED_BEHIND.match(text, place.stop) is not None


def _reaches(between: str) -> bool:
    """Say whether a denial reaches over the text behind it."""
    if _END.search(between):
        return False
    return all(_LISTED.fullmatch(f"{one} ") for one in between.split(",")[1:])
