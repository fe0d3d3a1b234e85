"""Names of cells that must be their own, and names that are near one which is not there."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from cellscribe.engine.errors import InputError


def check_names(names: list[str], where: str) -> None:
    """Raise InputError where two cells have one name."""
    if len(set(names)) != len(names):
        seen: set[str] = set()
        double = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{where} names two cells {double!r}; run adata.obs_names_make_unique() and write it again.")


def suggest(name: str, known: Sequence[str]) -> str:
    """Return the end of a sentence about a name that is not known: those near it, or a few of all."""
    near = get_close_matches(name, [str(item) for item in known], n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(repr(item) for item in near)}?".rstrip("?")
    shown = ", ".join(str(item) for item in known[:8])
    return f"; there are: {shown}{', ...' if len(known) > 8 else ''}" if shown else "; it has none"
