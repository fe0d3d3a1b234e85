"""Templates of prompts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.sentences.templates import (
    FIELDS,
    digest,
    fields_of,
    fill,
    own_tasks,
    packaged_templates,
    read_templates,
)

TASKS = {
    "cell_type_prediction", "cell_generation", "conditional_cell_generation", "cells_generation",
    "tissue_cells_generation", "cell_type_cells_generation", "tissue_prediction", "cell_types_prediction",
    "abstract_generation", "abstract_cells_generation", "gene_set_name", "gene_set_genes",
}  # fmt: skip


def test_ours_cover_every_task_and_never_tell_the_answer() -> None:
    found = packaged_templates()
    assert set(found) == TASKS
    for one in found.values():
        for prompt in one.prompts:
            assert not set(fields_of(prompt)) & set(fields_of(one.answer))
            assert set(fields_of(prompt)) <= set(FIELDS)
            assert prompt == prompt.strip()


def test_a_prompt_is_filled() -> None:
    values = {"organism": "mouse", "cell_sentence": "A B"}
    assert fill("a {organism} with {cell_sentence}, {organism}", values) == "a mouse with A B, mouse"
    with pytest.raises(UsageError, match=r"\{tissue\}"):
        fill("{tissue}", {})
    for formatted in ("{organism:>9}", "{organism!r}"):
        with pytest.raises(UsageError, match=r"gives \{organism\} a format, which is not taken"):
            fill(formatted, values)


def test_braces_in_values_are_left_alone() -> None:
    assert fill("{{x}} {cell_sentence}", {"cell_sentence": "{organism}"}) == "{x} {organism}"


def test_prompts_are_chosen_by_number_or_drawn_by_key() -> None:
    one = packaged_templates()["cell_type_prediction"]
    assert one.prompt(1, "any") == one.prompts[1]
    drawn = Counter(one.prompt(None, f"cell {i}") for i in range(300))
    assert set(drawn) == set(one.prompts)
    assert min(drawn.values()) > 60
    assert one.prompt(None, "cell 7") == one.prompt(None, "cell 7")
    assert any(one.prompt(None, f"cell {i}") != one.prompt(None, f"cell {i}", seed=1) for i in range(20))
    with pytest.raises(UsageError, match="prompts 0 to 2"):
        one.prompt(3, "any")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "holds no tasks"),
        ("{", "no readable JSON"),
        (json.dumps({"a": {"prompts": [], "answer": "x"}}), "the task a must be"),
        (json.dumps({"a": {"prompts": ["x"]}}), "the task a must be"),
        (json.dumps({"a": {"prompts": ["{gene}"], "answer": "x"}}), r"names \{gene\}"),
        (json.dumps({"a": {"prompts": ["{"], "answer": "x"}}), "odd braces"),
        (json.dumps({"a": {"prompts": ["{genes!r}"], "answer": "x"}}), r"\{genes\} has a format"),
        (json.dumps({"a": {"prompts": ["{genes:>9}"], "answer": "x"}}), r"\{genes\} has a format"),
        (
            json.dumps({"gene_sets_name": {"prompts": ["{genes}"], "answer": "x"}}),
            "none of our tasks, only gene_sets_n",
        ),
        (json.dumps({"gene_set_name": {"prompts": ["{{genes}}"], "answer": "x"}}), r"lacks \{genes\}"),
        (json.dumps({"tissue_prediction": {"prompts": ["{cell_sentence}"], "answer": "x"}}), r"lacks \{cell_sentences"),
        (json.dumps({"a": {"prompts": ["{cell_sentence}", "{genes}"], "answer": "x"}}), "about other cells"),
        (
            json.dumps({"cell_type_prediction": {"prompts": ["{cell_sentence}"], "answer": "{abstract}"}}),
            r"the answer of the task cell_type_prediction lacks \{cell_type\}, where labels stand",
        ),
        *(
            (json.dumps({task: {"prompts": [f"{{{said}}}"], "answer": "x"}}), rf"{task} lacks \{{num_cells\}}")
            for task, said in (
                ("tissue_cells_generation", "tissue"),
                ("cell_type_cells_generation", "cell_type"),
                ("abstract_cells_generation", "abstract"),
            )
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "templates.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_templates(path)
    with pytest.raises(InputError, match="does not exist"):
        read_templates(tmp_path / "nothing.json")


def test_a_task_says_what_it_is_about() -> None:
    about = {name: one.about for name, one in packaged_templates().items()}
    assert about["cell_type_prediction"] == "cell"
    groups = {"tissue_prediction", "cell_types_prediction", "abstract_generation"}
    assert {name for name, kind in about.items() if kind == "group"} == groups
    assert sum(kind == "nothing" for kind in about.values()) == 8


def test_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "templates.json"
    path.write_text(json.dumps({"cell_type_prediction": {"prompts": ["{cell_sentence} ->"], "answer": "{cell_type}"}}))
    assert read_templates(path)["cell_type_prediction"].prompts == ("{cell_sentence} ->",)


def test_tasks_that_are_none_of_ours_are_named() -> None:
    assert not own_tasks(TASKS)
    assert own_tasks(["gene_set_name", "cell_type_predictoin", "mine"]) == (
        "The templates have tasks of their own, used only where they are named: 'cell_type_predictoin' (is "
        "'cell_type_prediction' meant?), 'mine'."
    )


def test_a_digest_tells_prompts_apart_and_not_files(tmp_path: Path) -> None:
    found = []
    for i, (prompt, indent) in enumerate((("{genes}?", None), ("{genes}?", 2), ("{genes}!", None))):
        (tmp_path / f"{i}").write_text(
            json.dumps({"gene_set_name": {"prompts": [prompt], "answer": "x"}}, indent=indent)
        )
        found.append(digest(read_templates(tmp_path / f"{i}")))
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 16
