"""What answers say around a label."""

from __future__ import annotations

import pytest

from cellscribe.engine.errors import UsageError
from cellscribe.engine.sentences.frame import PLAIN, Frame, frame_of


def test_a_value_is_written_as_the_answer_says_and_found_in_it() -> None:
    found = frame_of("t", "This {organism} cell is a {cell_type}.", {"organism": "mouse"})
    assert found == Frame("This mouse cell is a ", ".")
    assert found.written("B cell") == " This mouse cell is a B cell."
    assert found.written("B cell", "\n") == "\nThis mouse cell is a B cell."
    assert found.value("This mouse cell is a B cell.") == "B cell"
    assert found.value("This mouse cell is a B cell") == "B cell"  # which the limit of tokens cut off
    assert found.value("A B cell.") == "A B cell."
    assert found.value("This mouse cell is a .") == "This mouse cell is a ."


def test_white_space_of_the_answer_goes_before_that_of_the_prompt() -> None:
    found = frame_of("t", "\n{cell_type}\n", {})
    assert found.written("B cell") == "\nB cell\n"
    assert found.value("B cell") == "B cell"


def test_plain_answers_stay_as_they_are() -> None:
    assert frame_of("t", "{cell_type}", {}) == PLAIN
    assert PLAIN.written("B cell") == " B cell"
    for text in ("B cell", "B cell.", ""):
        assert PLAIN.value(text) == text
    assert frame_of("t", "{cell_type}.", {}).value("B cell.") == "B cell"


@pytest.mark.parametrize(("answer", "said"), [("yes", "none"), ("{cell_type} of {tissue}", "{cell_type} and {tissue}")])
def test_an_answer_of_none_or_several_values_is_taken_whole_and_has_no_labels(answer: str, said: str) -> None:
    found = frame_of("t", answer, {})
    assert found.value("B cell of blood") == "B cell of blood"
    with pytest.raises(UsageError, match="the answer of the task t names") as error:
        found.written("B cell")
    assert said in str(error.value)
