"""InstructCells with random weights: their sizes, their tokenizer, and numbers of order one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cellscribe.export.checkpoint.instructcell import InstructParts, SpecialTokens
from cellscribe.export.models.t5 import T5
from cellscribe.export.random_instruct import SIZES, random_genes, random_instruct, random_words

TINY = "instructcell-tiny"


@pytest.fixture(scope="module")
def parts() -> InstructParts:
    return random_instruct(TINY, 3)


def test_the_full_shape_is_the_published_one() -> None:
    sizes = SIZES["instructcell"]
    with torch.device("meta"):
        t5 = T5(sizes.t5)
    tables = [one.bias.table for one in (t5.encoder, t5.decoder)]
    number = sum(one.numel() for one in t5.parameters()) - sum(one.numel() for one in tables)
    assert number + 2 * 32 * 12 == 222_903_552 - 24 * 768  # T5-base with 32,104 tokens instead of 32,128
    assert sizes.tokens == SpecialTokens(32100, 32101, 32102, 32103)
    assert (sizes.tower.n_genes, sizes.tower.n_memory, sizes.tower.n_queries) == (18961, 6, 8)


def test_one_seed_gives_one_model(parts: InstructParts) -> None:
    again, other = random_instruct(TINY, 3), random_instruct(TINY, 4)
    for name, tensor in parts.t5.state_dict().items():
        assert torch.equal(tensor, again.t5.state_dict()[name])
    assert not torch.equal(parts.tower.queries, other.tower.queries)
    assert all(bool(torch.isfinite(one).all()) for one in parts.tower.parameters())
    assert (parts.n_latent, parts.tokens.signal, parts.library) == (8, 127, (8.0, 0.25))


@pytest.mark.parametrize("shape", list(SIZES))
def test_words_are_as_many_as_the_model_knows(shape: str) -> None:
    words, tokens = random_words(shape), SIZES[shape].tokens
    assert words.get_vocab_size() == SIZES[shape].t5.vocab_size
    named = ("<CELL>", "</CELL>", "<CELL0>", "<CELL1>")
    assert SpecialTokens(*(words.token_to_id(one) for one in named)) == tokens
    found = words.encode("Which B2 <CELL><CELL0></CELL>?").ids
    assert found[-1] == 1
    assert 2 not in words.encode("User:\n~").ids
    assert words.decode(found) == "Which B2 ?"


def test_genes_are_known_and_differ() -> None:
    genes = random_genes()
    assert len(set(genes)) == len(genes) == 18961
    assert {"CD3E", "MS4A1", "LYZ", "ALB"} <= set(genes)


@torch.no_grad()
def test_numbers_are_of_order_one(parts: InstructParts) -> None:
    generator = np.random.default_rng(0)
    values = np.zeros((4, 18961), np.float32)
    for row in values:
        row[generator.choice(18961, 2000, replace=False)] = generator.uniform(0.5, 2, 2000)
    memory = parts.tower.memory(torch.from_numpy(values))
    features = parts.tower(memory)
    rows = torch.cat((parts.t5.embedding(torch.arange(60)).expand(4, -1, -1), features), 1)
    states = parts.t5.encode(rows, torch.ones(rows.shape[:2], dtype=torch.bool))
    assert parts.decoder is not None
    condition = parts.t5.decoder.norm(torch.randn(4, 48))
    rate, dropout, size = parts.decoder(condition, torch.randn(4, 8), torch.full((4, 1), 8.0))
    for one in (memory, features, states, parts.decoder.mapping(condition), dropout):
        assert 0.3 < float(one.std()) < 4
    assert 1e3 < float(rate.sum(1).min()) < float(rate.sum(1).max()) < 1e5
    assert 1 < float(parts.t5.logits(condition[:, None]).std()) < 4
    assert float(size.mean()) == pytest.approx(8, abs=1.5)
