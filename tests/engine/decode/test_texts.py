from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cellscribe.engine.decode.texts import GrowingText, decode


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Bytes, one a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


@pytest.mark.parametrize("text", ["CD4+ T cell", "αβ T cell, 5′", "细胞", " leading and trailing "])
def test_pieces_add_up_to_the_text_and_never_show_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    growing = GrowingText(tokenizer)
    pieces = [growing.add(i) for i in ids]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces).strip() == decode(tokenizer, ids) == text.strip()


@pytest.mark.parametrize("cut", [1, 2])
def test_a_character_cut_off_at_the_end_is_left_out_of_both(tokenizer: Tokenizer, cut: int) -> None:
    ids = tokenizer.encode("T 细").ids[:-cut]
    growing = GrowingText(tokenizer)
    assert "".join(growing.add(i) for i in ids).strip() == decode(tokenizer, ids) == "T"
