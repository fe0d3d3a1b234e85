"""Pages of compared engines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from peers.page import lines_of


def test_how_many_cells_were_written_is_said() -> None:
    part = {"median": 1.0, "lower": 0.5, "upper": 2.0}
    row: dict[str, Any] = {"who": "theirs", "parts": {"whole": part}, "units_per_s": 1.0, "peak_bytes": 1e9}
    entry: dict[str, Any] = {"rows": [row], "agreement": {}, "missing": {}}
    assert not any("cells written" in line for line in lines_of("500 cells", entry, ["whole"]))
    entry["rows"] = [{**row, "sizes": {"n": 16}}]
    assert "Times are those of one cell; cells written: 16 by theirs." in lines_of("500 cells", entry, ["whole"])
