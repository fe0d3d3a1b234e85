"""Where prompts end and answers begin: tokens are those of the whole text, labels are as the template's answer says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import UsageError
from cellscribe.engine.labels import labels_of
from cellscribe.engine.packaged import packaged_bundle, packaged_cells
from cellscribe.engine.sentences.frame import Frame
from cellscribe.engine.text_annotate import annotate_cells
from cellscribe.engine.text_groups import about_groups, ask_cells, groups_of
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_prompts import ENDED, Ended
from cellscribe.engine.text_types import TextSettings

LABELS = ("B cell", "CD4 T cell", "CD4 T cell, naive", "monocyte")
TASK = "cell_type_prediction"
ROWS = np.arange(3)


@pytest.fixture(scope="module")
def source() -> Iterator[CellSource]:
    with open_cells(packaged_cells()) as opened:
        yield opened


def model(folder: Path, *prompts: str, answer: str = "{cell_type}", task: str = TASK) -> TextModel:
    """A model whose task is asked with these prompts, drawn where there are several."""
    (folder / "t.json").write_text(json.dumps({task: {"prompts": prompts, "answer": answer}}))
    settings = TextSettings(num_genes=15, template=0 if len(prompts) == 1 else None)
    return TextModel(open_bundle(packaged_bundle("demo-c2s")), 1, "onnxruntime-cpu", folder / "t.json", settings)


def gemma() -> Tokenizer:
    """A small tokenizer of Gemma's kind: spaces are letters, and runs of them tokens."""
    found = Tokenizer(models.BPE())
    found.normalizer = normalizers.Replace(" ", "▁")
    found.pre_tokenizer = pre_tokenizers.Split(Regex("(?<=[^▁])(?=▁)|(?<=[^\n])(?=\n)"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["▁▁", "\n\n", "\n"], show_progress=False)
    found.train_from_iterator(["Cell type: CD4 T cell, naive\nB cell\nmonocyte   A\n\nCell type:"] * 9, trainer)
    found.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return found


@pytest.mark.parametrize("kind", ["gpt2", "neox", "gemma"])
@pytest.mark.parametrize("gap", ["", " ", "  ", "\n", "\n\n", " \n"])
def test_prompt_and_label_have_the_tokens_of_the_whole_text(kind: str, gap: str, shared: Path) -> None:
    path = shared / "fixtures" / f"c2s_{kind}" / "model" / "tokenizer.json"
    tokenizer = gemma() if kind == "gemma" else Tokenizer.from_file(str(path))
    prompt = Ended.of(f"Genes: CD3D CD3E\nCell type:{gap}", True)
    for frame in (Frame(), Frame("This is a ", ".")):
        for label in LABELS:
            behind = frame.written(label, prompt.gap or " ")
            parts = [tokenizer.encode(one, add_special_tokens=False).ids for one in (prompt.text, behind)]
            whole = f"Genes: CD3D CD3E\nCell type:{gap or ' '}{frame.before}{label}{frame.after}"
            assert [*parts[0], *parts[1]] == tokenizer.encode(whole, add_special_tokens=False).ids


def test_white_space_at_the_end_of_a_prompt_changes_no_label(source: CellSource, tmp_path: Path) -> None:
    plain, ended = (model(tmp_path, f"Genes: {{cell_sentence}}\nCell type:{end}") for end in ("", " "))
    left, right = (one.about_cells(source, rows=ROWS, labels=LABELS, all_labels=True) for one in (plain, ended))
    for one, other in zip(left, right, strict=True):
        assert one == other
        np.testing.assert_array_equal(one.label_logprobs, other.label_logprobs)
    assert ENDED in ended.notice
    assert not plain.notice
    free = [one.about_cells(source, rows=ROWS, max_new_tokens=4) for one in (plain, ended)]
    assert free[0] == free[1]
    assert ENDED in ended.notice
    questions = [
        ask_cells(plain, source, f"{{cell_sentence}} is a{end}", rows=ROWS, labels=LABELS) for end in ("", " ")
    ]
    assert questions[0] == questions[1]


def test_prompts_may_end_in_different_ways(source: CellSource, tmp_path: Path) -> None:
    ends = ("", " ", "\n", "\n\n")
    drawn = model(tmp_path, *(f"Genes: {{cell_sentence}}\nCell type:{end}" for end in ends))
    seen: list[tuple[int, int]] = []
    rows = np.arange(12)
    found = drawn.about_cells(
        source, rows=rows, labels=LABELS, progress=lambda done, total, _: seen.append((done, total))
    )
    assert [one.name for one in found] == [str(name) for name in source.obs_names[rows]]
    assert {one.text for one in found} <= set(LABELS)
    assert seen[-1] == (12, 12)
    assert seen == sorted(seen)
    alone = [drawn.about_cells(source, rows=rows[i : i + 1], labels=LABELS)[0] for i in range(12)]
    assert tuple(alone) == found


def test_lines_that_a_prompt_ends_stay_ended_before_free_answers() -> None:
    assert Ended.of("Answer:\n", False) == Ended("Answer:\n")
    assert Ended.of("Answer:\n  ", False) == Ended("Answer:\n", "", True)
    assert Ended.of("Answer:\n", True) == Ended("Answer:", "\n", True)


def test_labels_are_written_as_the_answer_says_and_found_in_it(source: CellSource, tmp_path: Path) -> None:
    own = model(tmp_path, "Genes: {cell_sentence}\nCell type:", answer="This {organism} cell is a {cell_type}.")
    tokenizer, frame = own.bundle.tokenizer, own.frame(TASK)
    trie = own.label_trie(LABELS, frame=frame)
    for label, ids in zip(LABELS, trie.sequences, strict=True):
        assert tokenizer.decode(ids[:-1]) == f" This human cell is a {label}."
    for all_labels in (False, True):
        found = own.about_cells(source, rows=ROWS, labels=LABELS, all_labels=all_labels)
        assert {one.text for one in found} <= set(LABELS)
        assert all(tokenizer.decode(one.token_ids).strip().startswith("This human cell is a ") for one in found)
    labelled = annotate_cells(own, source, rows=ROWS, labels=labels_of(LABELS), all_scores=True).labels
    assert labelled is not None
    assert set(labelled.chosen) <= set(LABELS)


def test_a_free_answer_is_what_stands_where_the_label_does(source: CellSource, tmp_path: Path) -> None:
    plain = model(tmp_path, "Genes: {cell_sentence}\nCell type:")
    whole = plain.about_cells(source, rows=ROWS)
    first = whole[0].text
    own = model(tmp_path, "Genes: {cell_sentence}\nCell type:", answer=f"{first[:2]}{{cell_type}}{first[-1]}")
    found = own.about_cells(source, rows=ROWS)
    assert found[0].text == first[2:-1].strip()
    assert [one.token_ids for one in found] == [one.token_ids for one in whole]


def test_answers_about_groups_are_framed_too(source: CellSource, tmp_path: Path) -> None:
    own = model(tmp_path, "{cell_sentences}\nTissue:", answer="From {tissue}.", task="tissue_prediction")
    column = next(one for one in source.obs_columns if source.obs_column(one).nunique() < 20)
    found = about_groups(own, source, groups_of(source, column, 5), "tissue_prediction", labels=("blood", "liver"))
    assert {one.text for one in found if one.status == "ok"} <= {"blood", "liver"}
    ids = next(one.token_ids for one in found if one.status == "ok")
    assert own.bundle.tokenizer.decode(ids).strip().startswith("From ")
    two = model(tmp_path, "{cell_sentences}\nTissue:", answer="{tissue} of {cell_type}", task="tissue_prediction")
    with pytest.raises(UsageError, match=r"tissue_prediction names \{tissue\} and \{cell_type\}; name one"):
        about_groups(two, source, groups_of(source, column, 5), "tissue_prediction", labels=("blood", "liver"))
    with pytest.raises(UsageError, match="the label '' is empty"):
        own.label_trie(["blood", " "])
