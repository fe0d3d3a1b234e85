"""CPU cores for workers that know nothing of each other: each locks the files of its cores for as long as it lives."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path

_KEPT: list[TextIOWrapper] = []  # open, hence locked, until the process ends


def keep_to_own_cores(count: int, folder: Path | None = None) -> tuple[int, ...]:
    """Keep this thread, and threads that it starts, to `count` cores that no other worker of the machine keeps to.

    Where too few are free, the thread may run on all cores, as before.

    Parameters
    ----------
    count
        Cores.
    folder
        Where locks are; a folder of the user's among the temporary files without it.

    Returns
    -------
    The cores, none where too few are free.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    place = folder or Path(tempfile.gettempdir()) / f"cellscribe-cores-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    mine: list[int] = []
    with ExitStack() as files:
        locks = []
        for core in sorted(os.sched_getaffinity(0)):
            file = files.enter_context((place / str(core)).open("w"))
            if len(mine) < count and _locked(file):
                mine.append(core)
                locks.append(file)
        if len(mine) < count:
            return ()
        os.sched_setaffinity(0, mine)
        files.pop_all()
        _KEPT.extend(locks)
    return tuple(mine)


def _locked(file: TextIOWrapper) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
