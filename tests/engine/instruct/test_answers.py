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


OTHERS = ("B Cell", "Classical Monocyte", "Macrophage", "Monocyte", "T Cell")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("This is not a B cell or T cell.", ""),
        ("not T cell or a type of B cell", ""),
        ("neither a monocyte, macrophage, nor a T cell", ""),
        ("neither a monocyte, an activated macrophage, nor a T cell", ""),
        ("anything but a T cell", ""),
        ("other than a T cell", ""),
        ("It does not look like it is a T cell", ""),
        ("I cannot say whether it is a T cell", ""),
        ("lacks features of a T cell", ""),
        ("I ruled out T cell", ""),
        ("T cells are unlikely.", ""),
        ("A T cell can be ruled out.", ""),
        ("The T cell markers are absent.", ""),
        ("It isn't a type of T cell.", ""),
        ("not a lymphocyte (T cell)", ""),
        ("Is this a T cell?", ""),
        ("Is it a T cell? No.", ""),
        ("Is it a B cell or a T cell?", ""),
        ("It is a T cell. No, that is wrong.", ""),
        ("T cell: no", ""),
        ("T cell: no, B cell: no", ""),
        ("**T cell**: no", ""),
        ("T cell = no", ""),
        ("T cell (no)", ""),
        ("T cell - not detected", ""),
        ("T cell no", ""),
        ("Nothing suggests a T cell.", ""),
        ("no markers suggesting a T cell", ""),
        ("It fails to resemble T cell.", ""),
        ("far from a T cell", ""),
        ("far from being a T cell", ""),
        ("T-cell-negative", ""),
        ("It isnt a T cell", ""),
        ("It doesnt look like a T cell", ""),
        ("T cells arent likely", ""),
        ("little evidence of a T cell", ""),
        ("often mistaken for a T cell", ""),
        ("as opposed to a T cell", ""),
        ("T cell identity is doubtful.", ""),
        ("It is improbable that this is a T cell.", ""),
        ("a non-T cell", ""),
        ("a non T cell", ""),
        ("a non-B/T cell", ""),
        ("This is not a B cell, it is a T cell.", "T Cell"),
        ("This is not a B cell, so this is a T cell", "T Cell"),
        ("A T cell, not a B cell or a monocyte.", "T Cell"),
        ("It has no CD19 expression, suggesting a T cell.", "T Cell"),
        ("It does not express CD19 and is a T cell.", "T Cell"),
        ("neither a B cell nor a monocyte but a T cell", "T Cell"),
        ("Not sure, probably a T cell.", "T Cell"),
        ("There is no doubt that this is a T cell.", "T Cell"),
        ("a T cell rather than a B cell", "T Cell"),
        ("No, it is a T cell.", "T Cell"),
        ("Not a B cell. T cell.", "T Cell"),
        ("B cells are unlikely. It is a T cell", "T Cell"),
        ("The T cell does not express CD19.", "T Cell"),
        ("a T cell (not a B cell)", "T Cell"),
        ("Is it a B cell? No. It is a T cell.", "T Cell"),
        ("Is this a B cell? No, T cell.", "T Cell"),
        ("Is it a B cell? No, it is not. It is a T cell.", "T Cell"),
        ("B cell: no, T cell: yes", "T Cell"),
        ("B cell: no\nT cell: yes", "T Cell"),
        ("B cell (no), T cell (yes)", "T Cell"),
        ("It is a T cell. Should more be said?", "T Cell"),
        ("I have no hesitation in calling it a T cell", "T Cell"),
        ("Without question a T cell.", "T Cell"),
        ("I do not doubt that it is a T cell.", "T Cell"),
        ("It is none other than a T cell.", "T Cell"),
        ("nothing but a T cell", "T Cell"),
        ("a non-activated T cell", "T Cell"),
        ("T cell (CD19 negative)", "T Cell"),
        ("T cell negative for CD19", "T Cell"),
        ("It is a T cell. No CD19 is expressed.", "T Cell"),
        ("CD16+ non-classical monocyte", "Monocyte"),
        ("a non classical monocyte", "Monocyte"),
        ("Is this a T cell? No, B cell.", "B Cell"),
        ("Not a classical monocyte.", ""),
    ],
)
def test_what_is_denied_doubted_or_asked_is_no_label(text: str, label: str) -> None:
    assert label_in(text, OTHERS) == label


def test_a_word_that_is_in_no_label_may_be_denied() -> None:
    assert label_in("CD16+ non-classical monocyte", ("Monocyte",)) == "Monocyte"
