"""Are the tokens equal? Asked before anything is timed.

An fp32 peer must choose the reference's tokens; it may leave them only where the reference itself hardly preferred its
choice (a near-tie: the order of sums decides), and after that the texts differ for good. Of a quantised peer the shares
are reported. Up to a text's first difference both saw the same tokens, so ``forced`` is the agreement under teacher
forcing, with no second run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NEAR_TIE = 1e-3  # of logits with deviation 2; fp32 engines differ by some 1e-5
Tokens = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Agreement:
    """How far tokens [B][N] agree with the reference's.

    `equal` is the share of equal tokens, `forced` the share among tokens whose whole text before them is equal,
    `first_difference` the earliest step at which a text differs (None: nowhere), `margin` the reference's largest lead
    at a first difference (None without margins), `differing` the number of texts that differ.
    """

    equal: float
    forced: float
    first_difference: int | None
    margin: float | None
    differing: int

    def is_same(self, near_tie: float = NEAR_TIE) -> bool:
        """Whether texts differ nowhere but after near-ties."""
        return not self.differing or (self.margin is not None and self.margin <= near_tie)

    def line(self) -> str:
        """Say it in words."""
        if not self.differing:
            return "all tokens equal"
        margin = "" if self.margin is None else f", where the reference's lead was at most {self.margin:.2g}"
        return (
            f"{self.equal:.1%} of tokens equal, {self.forced:.1%} given equal text before, "
            f"first difference at step {self.first_difference}{margin}"
        )


def compare(found: Tokens, wanted: Tokens, margins: Sequence[Sequence[float]] | None = None) -> Agreement:
    """Compare tokens [B][N] with the reference's, and its leads [B][N] over the second choice.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    if [len(row) for row in found] != [len(row) for row in wanted]:
        raise ValueError("the texts compared have different lengths")
    total = sum(len(row) for row in wanted)
    equal = sum(a == b for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True))
    firsts = [
        next((t for t, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), None)
        for one, other in zip(found, wanted, strict=True)
    ]
    differing = [(row, t) for row, t in enumerate(firsts) if t is not None]
    before = sum(len(row) if t is None else t for row, t in zip(wanted, firsts, strict=True))
    return Agreement(
        equal=equal / total if total else 1.0,
        forced=before / (before + len(differing)) if before or differing else 1.0,
        first_difference=min((t for _, t in differing), default=None),
        margin=max((margins[row][t] for row, t in differing), default=None) if margins else None,
        differing=len(differing),
    )
