from __future__ import annotations

import pytest

from cellscribe.engine.instruct.answers import label_in

LABELS = ("T Cell", "NK/T Cell", "CD8 T Cell", "B Cell", "Fev+", "Monocyte")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The cell type is T Cell based on the tissue.", "T Cell"),
        ("It is an NK/T cell.", "NK/T Cell"),
        ("These are CD8  t cells", "CD8 T Cell"),
        ("monocytes, I think", "Monocyte"),
        ("Fev+", "Fev+"),
        ("a CD8 T Cell, which is a T Cell", ""),
        ("a B Cell or a Monocyte", ""),
        ("a promonocyte", ""),
        ("", ""),
        ("a T-cell", "T Cell"),
        ("an activated T cell", "T Cell"),
        ("This is not a T cell.", ""),
        ("It isn't a B cell but a monocyte.", "Monocyte"),
        ("a non-T cell", ""),
        ("Neither a B cell nor a monocyte", ""),
        ("Not sure; a B cell", "B Cell"),
    ],
)
def test_the_label_that_a_text_names(text: str, label: str) -> None:
    assert label_in(text, LABELS) == label
