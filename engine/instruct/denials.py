"""Which words of a sentence are denied or doubted: a search for words, made so that it rather denies too much."""

from __future__ import annotations

import re

_DENIAL = re.compile(
    r"\b(?:not|no|none|nothing|nobody|never|neither|nor|without|cannot|unlike|unlikely|improbable|impossible|hardly"
    r"|barely|rarely|seldom|scarcely|doubt\w*|unclear|unsure|uncertain|questionable|(?:little|insufficient) evidence"
    r"|lack(?:s|ed|ing)?|fail(?:s|ed|ing|ure)? to|far from|short of|(?:devoid|free) of|exclud\w+|except"
    r"|(?:apart|aside) from|reject\w*|dismiss\w*|den(?:y|ies|ied|ying)|contradict\w*|against|absen(?:t|ce)|negative for"
    r"|mistaken for|(?:anything|all) but|(?:rather|other) than|instead of|in place of|opposed to|rul(?:e|es|ed|ing) out"
    r"|in(?:consistent|compatible) with|(?:distinct|different|differs|differ) from"
    r"|(?:is|are|was|were|do|does|did|has|have|had|ca|wo|could|would|should)nt)\b|n['’]t\b",
    re.IGNORECASE,
)
_NO_DENIAL = re.compile(
    r"\b(?:no|not|little|beyond|without(?: an?y?)?|no reason to) "
    r"(?:doubts?|hesitat(?:e|ions?)|questions?|uncertainty|reservations?|ambiguity)\b|\bnot (?:only|just|merely)\b"
    r"|\b(?:no|none|nothing|(?:cannot|can['’]t) be anything) (?:but|other than)\b"
    r"|(?:^|(?<=[.?？!:;\n]))[\s\"'*]*\bno\s*,",  # an answer to what stands before it
    re.IGNORECASE,
)
# What ends a clause, and with it a denial's reach; a comma does unless a list goes on behind it.
_END = re.compile(
    r"[;:!?)\n—–]|(?<!e\.g)(?<!i\.e)(?<!vs)\.(?=\s|$)|\s-\s|\b(?:but|however|though|although|yet|whereas|while|which"
    r"|thus|hence|therefore)\b|,\s*(?:suggesting|indicating|implying)\b"
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
    r"(?:not|unlikely|improbable|impossible|doubtful|questionable|uncertain|unclear|far from|absent|missing|excluded"
    r"|rejected|ruled out)|(?:is|are|was|were)n['’]?t|can(?:not|['’]?t) be)\b|-(?:negative|free|deficient|depleted)\b",
    re.IGNORECASE,
)
_ASKED = re.compile(r"(?:(?!\.(?=\s|$))[^;!?？\n(])*[?？]")
_ANSWERED_NO = re.compile(
    r"(?:[^.?!:;\n]*[.?!]|[\"'*_`’”)\]]*\s*[:;,=|–—(-]?)\s*"
    r"(?:nope|no|none|negative|absent|false|unlikely|excluded|incorrect|wrong"
    r"|not (?:at all|detected|present|likely|found|observed|supported))(?=[\"'*_)\]]*\s*(?:[.,;:!)|\n—–]|$))",
    re.IGNORECASE,
)
_NON = re.compile(r"\bnon-\S*/$", re.IGNORECASE)


def is_denied(text: str, place: range) -> bool:
    """Say whether words of a text are denied, doubted or asked.

    Words before them count as far as a clause and its lists go; behind them what is said of them, a question mark at
    the end of their sentence, and a "no" that answers it.

    Examples
    --------
    >>> is_denied("neither a monocyte, macrophage, nor a T cell", range(38, 44))
    True
    >>> is_denied("not a B cell, so this is a T cell", range(27, 33))
    False
    >>> is_denied("T cell: no", range(6))
    True
    """
    if any(one.match(text, place.stop) for one in (_DENIED_BEHIND, _ASKED, _ANSWERED_NO)):
        return True
    before = _NO_DENIAL.sub(lambda one: " " * len(one[0]), text[: place.start])
    return _NON.search(before) is not None or any(_reaches(before[one.end() :]) for one in _DENIAL.finditer(before))


def _reaches(between: str) -> bool:
    """Say whether a denial reaches over the text behind it."""
    if _END.search(between):
        return False
    return all(_LISTED.fullmatch(f"{one} ") for one in between.split(",")[1:])
