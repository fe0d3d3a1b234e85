"""Cleaning generated sentences, against the original's outputs."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from golden_sentences import Golden

from cellscribe.engine.sentences import SentenceGenes, clean_sentence, clean_sentences, native
from cellscribe.engine.sentences.native import NativeSentences

GENES = SentenceGenes.of(["a", "b", "c", "d"])


def test_every_case_of_the_original(golden: Golden) -> None:
    genes = SentenceGenes.of(golden.vocab["vocab_upper"])
    assert len(golden.inverse["cases"]) == 28
    for case in golden.inverse["cases"]:
        found = clean_sentence(case["sentence"], genes)
        assert found.words(genes) == case["post"], case["name"]
        assert found.num_replaced == case["num_replaced"], case["name"]


@pytest.mark.parametrize(
    ("sentence", "words", "num_replaced"),
    [
        ("a b", "A B", 0),
        ("a x b x", "A NOT_A_GENE B NOT_A_GENE", 2),
        ("a b a", "B A", 0),
        ("a  b", "A NOT_A_GENE B", 1),
        ("", "NOT_A_GENE", 1),
        ("a x a x a", "NOT_A_GENE NOT_A_GENE A", 2),
    ],
)
def test_rules(sentence: str, words: str, num_replaced: int) -> None:
    found = clean_sentence(sentence, GENES)
    assert " ".join(found.words(GENES)) == words
    assert found.num_replaced == num_replaced


def test_compiled_and_python_agree(compiled: NativeSentences, golden: Golden) -> None:
    words = golden.vocab["vocab_upper"]
    rng = np.random.default_rng(0)
    noise = [" ".join(rng.choice([*words[:40], "x", "", "é"], rng.integers(1, 90))) for _ in range(300)]
    sentences = [*(one["sentence"] for one in golden.inverse["cases"]), *noise, "straße", " "]
    found = []
    for with_ in (compiled, None):
        with patch.object(native, "find_native", lambda with_=with_: with_):
            found.append(clean_sentences(sentences, SentenceGenes.of(words)))
    for name in ("indptr", "genes", "num_replaced"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))
