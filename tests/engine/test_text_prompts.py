"""What fills the prompts."""

from __future__ import annotations

import pytest

from cellscribe.engine.errors import UsageError
from cellscribe.engine.text_prompts import Prompts

PROMPTS = Prompts("mouse", 100)


def test_a_prompt_says_how_many_genes_it_names() -> None:
    assert PROMPTS.of_cell("{num_genes} of a {organism}: {cell_sentence}", "A B C") == "3 of a mouse: A B C"
    assert PROMPTS.of_group("{num_cells} by {num_genes}: {cell_sentences}", ["A", "B C"]) == "2 by 2: A\nB C"
    assert PROMPTS.of_nothing("Write {num_genes} genes.") == "Write 100 genes."


def test_values_that_are_given_go_first() -> None:
    given = {"organism": "fly", "num_genes": "7", "cell_sentence": "Z"}
    assert PROMPTS.of_cell("{num_genes} {organism} {cell_sentence}", "A", given) == "7 fly A"
    with pytest.raises(UsageError, match=r"\{tissue\}"):
        PROMPTS.of_nothing("{tissue}", given)
