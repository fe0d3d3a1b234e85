from __future__ import annotations

import numpy as np

from cellscribe.engine import measure_text, text_groups
from cellscribe.engine.cells import tokenizer
from cellscribe.engine.decode import sampling as tokens
from cellscribe.engine.instruct import compared_cells, sampling
from cellscribe.engine.instruct import templates as instructions
from cellscribe.engine.keyed import cell_key, cell_keys, stream_keys, uniforms
from cellscribe.engine.sentences import templates, transform


def splitmix(state: int) -> int:
    """SplitMix64's output function in plain integers."""
    mask = 2**64 - 1
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_uniforms_are_splitmix64_read_as_a_counter() -> None:
    keys = np.array([0, 12345, 2**64 - 1], dtype=np.uint64)
    counters = np.array([0, 7, 2**40])
    expected = [
        (splitmix((int(k) + (int(c) + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 40) * 2.0**-24
        for k, c in zip(keys, counters, strict=True)
    ]
    assert uniforms(keys, counters).tolist() == expected


def test_first_outputs_equal_the_published_generator() -> None:
    # SplitMix64 seeded with 0 starts with this number (Vigna's reference implementation).
    draw = uniforms(np.array([0], dtype=np.uint64), np.array([0]))
    assert draw[0] == (0xE220A8397B1DCDAF >> 40) * 2.0**-24


def test_draws_do_not_depend_on_their_neighbours() -> None:
    keys = stream_keys(3, cell_keys([f"cell {i}" for i in range(50)]))
    together = uniforms(keys[:, None], np.arange(20))
    alone = uniforms(keys[17:18], np.array([4]))
    assert together[17, 4] == alone[0]


def test_streams_and_seeds_and_cells_differ() -> None:
    cells = cell_keys(["a", "b"])
    draws = {
        float(uniforms(stream_keys(seed, cells, stream), np.array([0]))[i])
        for seed in (0, 1)
        for stream in (0, 1)
        for i in (0, 1)
    }
    assert len(draws) == 8


def test_draws_are_uniform() -> None:
    keys = stream_keys(0, cell_keys([str(i) for i in range(400)]))
    draws = uniforms(keys[:, None], np.arange(500)).ravel()
    counts = np.histogram(draws, 50, (0, 1))[0]
    expected = len(draws) / 50
    assert ((counts - expected) ** 2 / expected).sum() < 100  # chi-square of 49 degrees, far in the tail
    assert draws.min() >= 0
    assert draws.max() < 1


def test_the_key_of_a_name_is_stable() -> None:
    assert cell_key("AAACATACAACCAC-1") == cell_keys(["x", "AAACATACAACCAC-1"])[1]
    assert cell_key("a") != cell_key("b")


def test_every_purpose_has_a_stream_of_its_own() -> None:
    drawing = (text_groups, measure_text, compared_cells, instructions, templates)
    streams = [
        tokens.TOKEN_STREAM, tokenizer._TIES, tokenizer._THINNING, transform.TIES, transform.SAMPLE,
        sampling._LATENTS, sampling._COUNTS, *(one._DRAW for one in drawing),
    ]  # fmt: skip
    assert len(set(streams)) == len(streams)
