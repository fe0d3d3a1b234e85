from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.instruct.templates import (
    ANNOTATION,
    GENERATION,
    SENSITIVITY,
    TASKS,
    Instructions,
    own_instruction,
    packaged_instructions,
    read_instructions,
)


def test_braces_of_ones_own_are_read_as_they_are_unless_left_open() -> None:
    for text in ('Write {"type": {"name": 1}} for {cell}', "{}", "Say {{ of {cell}", "No braces"):
        found = own_instruction(text).choose(None, {})
        assert found == text.replace("{{ ", "{ ")
    for text in ("Say {cel what is it?", "Say {cell", "cell}", "} {cell} {", '{"a": {"b": 1}'):
        with pytest.raises(UsageError, match="the instruction has odd braces"):
            own_instruction(text)


def test_what_a_written_cell_lacks_is_an_option_of_generate() -> None:
    own = Instructions(GENERATION, ("Write a {cell_type} of {tissue} from {species}",))
    with pytest.raises(UsageError) as error:
        own.choose(None, {})
    said = str(error.value)
    assert said.endswith("give it with --cell-type (cell_type) and --set species=TEXT (fields) and --tissue (fields).")


def test_ours_cover_all_tasks() -> None:
    found = packaged_instructions()
    assert tuple(found) == TASKS
    assert all(found[GENERATION].prompts)


def test_the_one_that_says_most_is_chosen() -> None:
    task = packaged_instructions()[ANNOTATION]
    assert "blood" in task.choose(None, {"tissue": "blood"})
    assert task.choose(None, {"unused": "x"}) == task.choose(len(task.prompts) - 1, {})
    every = {"tissue": "blood", "species": "human", "sequencing_method": "10x"}
    assert task.choose(None, every) == task.choose(0, every)
    assert len({task.choose(None, every, f"cell {i}", 0) for i in range(60)}) == len(task.prompts)
    with pytest.raises(UsageError, match="instructions 0 to 4 and 9 was asked for"):
        task.choose(9, every)
    with pytest.raises(UsageError, match=r"needs a value for \{tissue\}"):
        task.choose(0, {})


def test_files_of_both_layouts_are_read(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    ours.write_text(json.dumps({ANNOTATION: ["Name {cell}."], "mine": ["Is {cell} from {tissue}?"]}))
    assert tuple(read_instructions(ours)) == (ANNOTATION, "mine")
    theirs.write_text(json.dumps([{"instruction": "Which of {choices} is {input}?", "response": "{output}"}]))
    assert read_instructions(theirs)[ANNOTATION].prompts == ("Which of {choices} is {cell}?",)
    theirs.write_text(json.dumps([{"instruction": "Is {input} sensitive to {drug}?"}]))
    assert tuple(read_instructions(theirs)) == (SENSITIVITY,)
    theirs.write_text(json.dumps([{"instruction": "Write a {cell_type}."}]))
    assert tuple(read_instructions(theirs)) == (GENERATION,)
    assert read_instructions(theirs, GENERATION)[GENERATION].prompts == ("Write a {cell_type}.",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable JSON"),
        ("{}", "holds no tasks"),
        ('{"cell_type_annotation": []}', "must be a list of texts"),
        ('{"cell_type_annotation": ["{cell"]}', "odd braces"),
        ('{"cell_type_annotation": ["{cell} {age}"]}', "names {age}; known are cell"),
        ('{"cell_type_annotation": ["What is it?"]}', "must name {cell} once"),
        ('{"cell_generation": ["Write {cell}."]}', r"names {cell} \({input}\), and no cell is there before"),
        ('[{"response": "x"}]', "must be a list of texts"),
        ('{"nonsense": ["{cell}?"]}', "has none of our tasks, only nonsense; ours are cell_type_annotation"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_instructions(tmp_path / "t.json")
    with pytest.raises(InputError, match="does not exist"):
        read_instructions(tmp_path / "none.json")


def test_a_file_must_have_what_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"mine": ["Is {cell} large?"]}))
    assert tuple(read_instructions(path, "mine")) == ("mine",)
    with pytest.raises(InputError, match="has nothing for the task cell_generation, only for mine; add it"):
        read_instructions(path, GENERATION)
    path.write_text(json.dumps([{"instruction": "Which type is {input}?"}]))
    with pytest.raises(InputError, match="leave it out, or take a file of instructions for written cells"):
        read_instructions(path, GENERATION)
