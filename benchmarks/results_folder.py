"""Where the scripts of this folder find and leave results.

`PUBLISHED` holds the results that the README quotes. A script that is run by hand writes there; the suite, whose
figures are of whatever machine it runs on, sends its scripts elsewhere with ``CELLSCRIBE_BENCH_RESULTS``.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "CELLSCRIBE_BENCH_RESULTS"
PUBLISHED = Path(__file__).resolve().parent / "results"


def results_folder() -> Path:
    """Return the folder for results, made where it is missing."""
    folder = Path(os.environ.get(VARIABLE) or PUBLISHED).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shared_data() -> Path:
    """Return the folder of cells that are not part of the repository; it may be missing."""
    shared = os.environ.get("CELLSCRIBE_SHARED") or Path(__file__).resolve().parents[2] / "shared"
    return Path(shared) / "data"
