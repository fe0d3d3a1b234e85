from __future__ import annotations

import numpy as np

from cellscribe.engine.atlas.twins import Recent, input_keys, take_cells
from cellscribe.engine.cells import TokenBatch


def batch(values: list[list[float]], lengths: list[int]) -> TokenBatch:
    shown = np.array(values, np.float32)
    B, S = shown.shape
    mask = np.arange(S) < np.array(lengths)[:, None]
    genes = np.tile(np.arange(S), (B, 1))
    return TokenBatch(np.arange(B), tuple(map(str, range(B))), genes, shown, mask, genes)


def test_keys_tell_inputs_apart_and_leave_padding_out() -> None:
    keys = input_keys(batch([[1, 2, 3], [1, 2, 9], [1, 2, 3], [1, 2, 4]], [2, 2, 3, 3]))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert keys[0] == input_keys(batch([[1, 2]], [2]))[0]


def test_the_same_values_of_other_genes_are_another_input() -> None:
    one, other = batch([[1, 2]], [2]), batch([[1, 2]], [2])
    other.genes[0, 1] = 7
    assert input_keys(one) != input_keys(other)


def test_the_least_recently_used_goes_first() -> None:
    recent: Recent[bytes] = Recent(len, max_bytes=650)
    for key in (b"a", b"b", b"c"):
        recent.put(key, b"x")
    assert recent.get(b"a") == b"x"
    recent.put(b"d", b"x")
    assert (recent.get(b"a"), recent.get(b"b"), recent.get(b"d")) == (b"x", None, b"x")


def test_some_cells_of_a_batch() -> None:
    some = take_cells(batch([[1, 2], [3, 4], [5, 6]], [2, 2, 2]), [2, 0])
    assert (some.cell_ids, some.values.tolist(), some.rows.tolist()) == (("2", "0"), [[5, 6], [1, 2]], [2, 0])
