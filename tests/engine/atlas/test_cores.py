from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_KEEP = """
import os, sys
from pathlib import Path
from cellscribe.engine.atlas.cores import keep_to_own_cores
got = keep_to_own_cores(int(sys.argv[2]), Path(sys.argv[1]))
print(len(got), *sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.read()
"""


def _keep(folder: Path, count: int) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _KEEP, str(folder), str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, [int(one) for one in process.stdout.readline().split()]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinities here")
def test_workers_get_cores_of_their_own_until_none_is_left(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    first, got = _keep(tmp_path, 1)
    second, rest = _keep(tmp_path, len(cores))
    try:
        assert got == [1, cores[0]]
        assert rest == [0, *cores]  # too few are free: it runs where it likes
        first.kill()
        first.wait()
        third, again = _keep(tmp_path, 1)
        third.kill()
        third.wait()
        assert again == got  # what a dead worker kept is free
    finally:
        for one in (first, second):
            one.kill()
            one.wait()
