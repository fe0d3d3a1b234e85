"""What a damaged spiece.model, or a damaged file beside it, is told to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spieces import LETTERS, SPECIALS, copied, field, piece, written

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.protobuf import Message
from cellscribe.export.checkpoint.sentencepiece import read_t5_tokenizer

DOUBLE = SPECIALS + LETTERS + piece("a", -4.0)


def test_messages_are_read_by_their_fields() -> None:
    found = Message.of(field(1, 300) + field(2, b"one") + field(2, b"two") + field(3, 0.5) + b"\x21" + bytes(8))
    assert (found.number(1), found.each(2), found.data(2), found.single(3)) == (300, [b"one", b"two"], b"two", 0.5)
    assert (found.number(9, 7), found.data(9), found.single(9), found.data(4)) == (7, b"", 0.0, bytes(8))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (b"", "0 of its 0 pieces stand for what is unknown"),
        (SPECIALS[:-1], "field 1 is cut off"),
        (b"\xff" * 20, "a number at byte 0 has no end"),
        (b"\x0b", "of kind 3, which there is not"),
        (field(1, 5), "field 1 holds a number"),
        (field(2, field(3, b"no")), "field 3 holds no whole number"),
        (field(2, field(3, 2)), "is no Unigram model"),
        (field(3, field(5, 0)), "is no Unigram model that marks spaces"),
        (SPECIALS + piece(""), "a piece ''"),
        (SPECIALS + piece("a", float("nan")), "with the score nan"),
        (SPECIALS + field(1, field(1, b"\xff")), "is damaged .'utf-8'"),
        (SPECIALS + field(1, field(1, b"a") + field(2, bytes(3))), "3 bytes where a number takes 4"),
        (SPECIALS + piece("a", kind=6), "pieces of the kind byte"),
        (SPECIALS + SPECIALS, "2 of its 6 pieces"),
        (DOUBLE, "a piece is there twice"),
        (SPECIALS + LETTERS + field(3, field(2, b"\xff\xff\xff\xff")), "is damaged"),
    ],
)
def test_a_damaged_model_is_one_sentence(tmp_path: Path, model: bytes, said: str) -> None:
    folder = written(tmp_path, model)
    with pytest.raises(CheckpointError, match=said) as found:
        read_t5_tokenizer(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"tokenizer_config": "{"}, "tokenizer_config.json is not valid JSON"),
        ({"tokenizer_config": []}, "tokenizer_config.json holds no dictionary"),
        ({"tokenizer_config": {"extra_ids": -1}}, "garbles its special or added tokens .-1 extra ids"),
        ({"tokenizer_config": {"extra_ids": [1]}}, "garbles its special or added tokens"),
        ({"tokenizer_config": {"extra_ids": 2, "added_tokens_decoder": {"x": {}}}}, "garbles its special"),
        ({"special_tokens_map": {"eos_token": 5}}, "garbles its special or added tokens"),
        ({"special_tokens_map": {"eos_token": {"text": "x"}}}, "garbles its special or added tokens"),
        ({"special_tokens_map": {"additional_special_tokens": [3]}}, "garbles its special or added tokens"),
        ({"special_tokens_map": {"additional_special_tokens": 3}}, "garbles its special or added tokens"),
        ({"added_tokens": {"<X>": 12}}, "<X> is to be 12, and its place is 10"),
        ({"added_tokens": {"<X>": "10"}}, "<X> has the id '10'"),
        ({"added_tokens": {"a": 10}}, "a is to be 10, and its place is 4"),
        ({"added_tokens": {"": 10}}, "garbles its special or added tokens"),
    ],
)  # fmt: skip
def test_damaged_files_beside_it_are_one_sentence(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    folder = written(tmp_path, SPECIALS + LETTERS, **files)
    with pytest.raises(CheckpointError, match=said):
        read_t5_tokenizer(folder)


def test_a_model_cut_anywhere_is_refused(shared: Path, tmp_path: Path) -> None:
    golden = shared / "fixtures" / "instructcell_model"
    whole = (golden / "model" / "spiece.model").read_bytes()
    folder = copied(golden / "model", tmp_path)
    for at in np.linspace(1, len(whole) - 1, 40).astype(int):
        (folder / "spiece.model").write_bytes(whole[:at])
        with pytest.raises(CheckpointError):
            read_t5_tokenizer(folder)
