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


OTHERS = ("B Cell", "Macrophage", "Monocyte", "T Cell")


@pytest.mark.parametrize(
    "text",
    [
        "This is not a B cell or T cell.",
        "not T cell or a type of B cell",
        "neither a monocyte, macrophage, nor a T cell",
        "neither a monocyte, an activated macrophage, nor a T cell",
        "anything but a T cell",
        "other than a T cell",
        "It does not look like it is a T cell",
        "I cannot say whether it is a T cell",
        "lacks features of a T cell",
        "I ruled out T cell",
        "T cells are unlikely.",
        "A T cell can be ruled out.",
        "The T cell markers are absent.",
        "It isn't a type of T cell.",
        "not a lymphocyte (T cell)",
    ],
)
def test_what_is_denied_or_doubted_is_no_label(text: str) -> None:
    assert label_in(text, OTHERS) == ""


@pytest.mark.parametrize(
    "text",
    [
        "This is not a B cell, it is a T cell.",
        "This is not a B cell, so this is a T cell",
        "A T cell, not a B cell or a monocyte.",
        "It has no CD19 expression, suggesting a T cell.",
        "It does not express CD19 and is a T cell.",
        "neither a B cell nor a monocyte but a T cell",
        "Not sure, probably a T cell.",
        "There is no doubt that this is a T cell.",
        "a T cell rather than a B cell",
        "No, it is a T cell.",
        "Not a B cell. T cell.",
        "B cells are unlikely. It is a T cell",
        "The T cell does not express CD19.",
        "a T cell (not a B cell)",
    ],
)
def test_a_denial_ends_with_its_clause(text: str) -> None:
    assert label_in(text, OTHERS) == "T Cell"
