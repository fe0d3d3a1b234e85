"""The native library itself: threads, forks, several callers."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cellscribe.kernels.cpu_library import CpuLibrary, Kind, PackedWeight

pytestmark = pytest.mark.usefixtures("native_library")


def weight_of(library: CpuLibrary) -> tuple[PackedWeight, np.ndarray]:
    numbers = np.random.default_rng(0).normal(size=(300, 400)).astype(np.float32)
    weight = PackedWeight(library, Kind.FLOAT, 300, 400)
    weight.put(0, numbers)
    return weight, numbers


@pytest.mark.parametrize("threads", [0, -1, 100_000, 2**31])
def test_numbers_of_threads_that_cannot_be_are_refused(threads: int) -> None:
    with pytest.raises(RuntimeError, match="threads cannot be started; ask for 1 to 1024"):
        CpuLibrary(threads)


def test_python_threads_share_a_library() -> None:
    library = CpuLibrary(3)
    weight, _ = weight_of(library)
    rows = [np.random.default_rng(i).normal(size=(1 + i % 20, 300)).astype(np.float32) for i in range(60)]
    alone = [weight(one) for one in rows]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(weight, rows * 3))
    assert all((a == b).all() for a, b in zip(alone * 3, together, strict=True))


def test_a_forked_process_goes_on_and_ends() -> None:
    library = CpuLibrary(2)
    weight, _ = weight_of(library)
    rows = np.ones((4, 300), np.float32)
    expected = weight(rows)
    child = os.fork()
    if not child:
        try:
            equal = (weight(rows) == expected).all()
            del weight, library
            os._exit(0 if equal else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (weight(rows) == expected).all()


def test_greedy_is_the_first_of_the_largest() -> None:
    library = CpuLibrary(2)
    logits = np.random.default_rng(1).normal(size=(5, 1003)).astype(np.float32)
    logits[1, 7] = logits[1, 900] = 30.0
    logits[2, 1002] = 40.0
    logits[3, 5] = np.nan
    logits[4, 5] = np.inf
    tokens, logprobs = library.greedy(logits)
    assert tokens[:3].tolist() == [int(logits[0].argmax()), 7, 1002]
    wide = logits[:3].astype(np.float64)
    expected = wide.max(-1) - np.log(np.exp(wide).sum(-1))
    assert np.abs(logprobs[:3] - expected).max() < 1e-5
    assert not np.isfinite(logprobs[3:]).any()
