"""Tokenizers of T5: golden ids and texts, hand-made models, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from spieces import LETTERS, SPECIALS, copied, field, written
from tokenizers import Tokenizer

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.sentencepiece import SpecialIds, read_t5_tokenizer, special_ids

CASES = ["annot", "cpcg", "mixed", "single_annot"]


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "fixtures" / "instructcell_model"


@pytest.fixture(scope="module")
def tokenizer(golden: Path) -> Tokenizer:
    return read_t5_tokenizer(golden / "model")


def padded(rows: list[list[int]], width: int) -> np.ndarray:
    return np.array([[*row, *[0] * (width - len(row))] for row in rows])


@pytest.mark.parametrize("case", CASES)
def test_prompts_are_cut_as_upstream_cuts_them(golden: Path, tokenizer: Tokenizer, case: str) -> None:
    prompts = [one["prompt"] for one in json.loads((golden / "texts.json").read_text())["prompts"][case]]
    wanted = np.load(golden / f"{case}.npz")["input_ids"]
    rows = [one.ids for one in tokenizer.encode_batch(prompts)]
    np.testing.assert_array_equal(padded(rows, wanted.shape[1]), wanted)


@pytest.mark.parametrize("case", CASES)
def test_texts_are_those_of_upstream(golden: Path, tokenizer: Tokenizer, case: str) -> None:
    wanted = [one["text_out"] for one in json.loads((golden / "texts.json").read_text())["prompts"][case]]
    ids = np.load(golden / f"{case}.npz")["generated_ids"].tolist()
    assert [tokenizer.decode(row, skip_special_tokens=True) for row in ids] == wanted


def test_both_forms_of_a_tokenizer_agree(shared: Path, tmp_path: Path) -> None:
    folder = shared / "fixtures" / "t5_plain"
    texts, wanted = json.loads((folder / "texts.json").read_text()), np.load(folder / "inputs.npz")["input_ids"]
    ids = np.load(folder / "expected.npz")["generated_ids"].tolist()
    pieces = copied(folder / "model", tmp_path)
    (pieces / "tokenizer.json").unlink()
    for where in (folder / "model", pieces):
        found = read_t5_tokenizer(where)
        rows = [one.ids for one in found.encode_batch(texts["texts"])]
        np.testing.assert_array_equal(padded(rows, wanted.shape[1]), wanted)
        assert [found.decode(row, skip_special_tokens=True) for row in ids] == texts["decoded"]
        assert special_ids(where, found) == SpecialIds(0, 1, 2)
        assert [found.token_to_id(f"<extra_id_{i}>") for i in (0, 9)] == [194, 185]


def test_what_truncates_or_pads_is_turned_off(shared: Path, tmp_path: Path) -> None:
    folder = copied(shared / "fixtures" / "t5_plain" / "model", tmp_path)
    other = Tokenizer.from_file(str(folder / "tokenizer.json"))
    other.enable_truncation(3)
    other.enable_padding(length=50)
    other.save(str(folder / "tokenizer.json"))
    found = read_t5_tokenizer(folder)
    assert (found.truncation, found.padding) == (None, None)


def test_added_tokens(tokenizer: Tokenizer) -> None:
    ids = {name: tokenizer.token_to_id(name) for name in ("<CELL>", "</CELL>", "<CELL0>", "<CELL1>", "<extra_id_0>")}
    assert ids == {"<CELL>": 397, "</CELL>": 398, "<CELL0>": 399, "<CELL1>": 400, "<extra_id_0>": 396}
    assert tokenizer.get_vocab_size() == 401
    apart, together = (
        tokenizer.encode(f"a{one}T").ids for one in (" <CELL> <CELL0>\n</CELL>  ", "<CELL><CELL0></CELL>")
    )
    assert apart == together == [*tokenizer.encode("a").ids[:-1], 397, 399, 398, *tokenizer.encode("T").ids]


def test_spaces(tokenizer: Tokenizer) -> None:
    wanted = tokenizer.encode("a cell of liver").ids
    for text in ("  a  cell of liver ", "a\ncell\tof\n\nliver\n", "\u3000a cell\u00a0of liver"):
        assert tokenizer.encode(text).ids == wanted
    for nothing in ("", " ", "\n\n"):
        assert tokenizer.encode(nothing).ids == [1]
    assert tokenizer.decode(wanted) == "a cell of liver"


def test_a_written_tokenizer_is_the_same(tokenizer: Tokenizer) -> None:
    again, text = Tokenizer.from_str(tokenizer.to_str()), "The <CELL><CELL0></CELL>, of the liver: 中国\n."
    assert again.encode(text).ids == tokenizer.encode(text).ids
    assert again.decode(tokenizer.encode(text).ids) == tokenizer.decode(tokenizer.encode(text).ids)


def test_a_model_made_by_hand(tmp_path: Path) -> None:
    found = read_t5_tokenizer(written(tmp_path, SPECIALS + LETTERS))
    assert found.encode("ab").ids == [6, 1]
    assert found.encode("aba").ids == [6, 4, 1]  # at -4.75; the three pieces ▁, a and ba are at -6.0
    assert found.encode("bba").ids == [3, 5, 7, 1]
    assert found.encode(" a  b?").ids == [3, 4, 3, 5, 2, 1]
    assert found.encode("a<extra_id_0>b<extra_id_1>").ids == [3, 4, 9, 3, 5, 8, 1]
    assert found.decode([3, 4, 9, 3, 5, 8, 1]) == "a b"


def test_what_the_normaliser_is_told(tmp_path: Path) -> None:
    plain = field(3, field(3, 0) + field(4, 0))
    found = read_t5_tokenizer(written(tmp_path, SPECIALS + LETTERS + plain))
    assert found.encode("a  b ").ids == [4, 3, 3, 5, 3, 1]
    assert found.decode([3, 4]) == " a"


def test_only_the_older_kind_puts_spaces_after_added_tokens(tmp_path: Path) -> None:
    config = {"extra_ids": 2, "legacy": False}
    found = read_t5_tokenizer(written(tmp_path, SPECIALS + LETTERS, tokenizer_config=config))
    assert found.encode("a<extra_id_0>b").ids == [3, 4, 9, 5, 1]


def test_added_tokens_do_to_spaces_what_they_are_said_to(tmp_path: Path) -> None:
    entries = {str(i): {"content": f"<extra_id_{9 - i}>", "lstrip": True, "special": True} for i in (8, 9)}
    config = {"extra_ids": 2, "legacy": False, "added_tokens_decoder": entries}
    found = read_t5_tokenizer(written(tmp_path, SPECIALS + LETTERS, tokenizer_config=config))
    assert found.encode("a <extra_id_0> b").ids == [3, 4, 9, 3, 5, 1]


def test_tokens_that_are_not_special_are_shown(tmp_path: Path) -> None:
    found = read_t5_tokenizer(written(tmp_path, SPECIALS + LETTERS, added_tokens={"<X>": 11, "<Y>": 10}))
    assert [found.token_to_id(one) for one in ("<Y>", "<X>")] == [10, 11]
    assert found.decode([3, 4, 10, 9]) == "a<Y>"


def test_special_tokens_without_an_id_come_last(tmp_path: Path) -> None:
    special = {"additional_special_tokens": ["<Z>", {"content": "<Y>"}, "<extra_id_0>", "<extra_id_1>"]}
    folder = written(tmp_path, SPECIALS + LETTERS, added_tokens={"<Y>": 10}, special_tokens_map=special)
    found = read_t5_tokenizer(folder)
    assert [found.token_to_id(one) for one in ("<Y>", "<Z>", "<extra_id_1>")] == [10, 11, 8]


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json cannot be read"),
        (lambda folder: _without_end(folder / "tokenizer.json"), "does not end texts"),
        (lambda folder: [(folder / one).unlink() for one in ("tokenizer.json", "spiece.model")], "has no tokenizer"),
    ],
)  # fmt: skip
def test_other_folders_are_refused(shared: Path, tmp_path: Path, change: Change, said: str) -> None:
    folder = copied(shared / "fixtures" / "t5_plain" / "model", tmp_path)
    change(folder)
    with pytest.raises(CheckpointError, match=said):
        read_t5_tokenizer(folder)


def test_a_token_that_is_missing_is_named(shared: Path, tmp_path: Path) -> None:
    folder = copied(shared / "fixtures" / "t5_plain" / "model", tmp_path)
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<nothing>"}))
    with pytest.raises(CheckpointError, match="has no token <nothing>, its pad_token"):
        read_t5_tokenizer(folder)


def _without_end(path: Path) -> None:
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "post_processor": None}))
