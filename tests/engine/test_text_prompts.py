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


def test_what_is_no_text_to_the_model_stands_in_templates_alone() -> None:
    signs = Prompts("mouse", 100, ("<end>",))
    assert signs.of_nothing("<end>{tissue}", {"tissue": "liver"}) == "<end>liver"
    for call in (
        lambda: signs.of_nothing("{tissue}", {"tissue": "a<end>b"}),
        lambda: signs.of_cell("{cell_sentence}", "A", {"tissue": "<end>"}),
        lambda: signs.of_group("{cell_sentences}", ["A"], {"tissue": "<end>"}),
    ):
        with pytest.raises(UsageError, match="the value of tissue holds <end>, which is no text to the model"):
            call()
    with pytest.raises(UsageError, match="the value of organism holds <end>"):
        Prompts("<end>", 100, ("<end>",)).of_nothing("Write.")


def test_values_that_are_given_go_first() -> None:
    given = {"organism": "fly", "num_genes": "7", "cell_sentence": "Z"}
    assert PROMPTS.of_cell("{num_genes} {organism} {cell_sentence}", "A", given) == "7 fly A"
    with pytest.raises(UsageError, match=r"\{tissue\}"):
        PROMPTS.of_nothing("{tissue}", given)
