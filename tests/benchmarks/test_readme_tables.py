"""Tables of the README: written from the result files, and no others."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import readme_tables


def test_the_readme_says_what_the_files_say() -> None:
    text = readme_tables.README.read_text(encoding="utf-8")
    assert text.count("<!-- table: ") == len(readme_tables.TABLES)
    assert readme_tables.filled(text) == text, "run python benchmarks/readme_tables.py"


def test_the_best_of_the_others_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(who: str, step: float, whole: float) -> dict[str, object]:
        parts = {"step": {"median": step, "floor": {"percent_of_roofline": 51.4}}, "whole": {"median": whole}}
        return {"who": who, "peak_bytes": 2e9, "parts": parts}

    rows = [row("cellscribe int4", 0.02, 1.5), row("a", 0.03, 3.0), row("b", 0.05, 2.0)]
    ratios = {
        "a / cellscribe int4": {"step": [1.5, 1.4, 1.6], "whole": [2.0, 1.9, 2.1]},
        "b / cellscribe int4": {"step": [2.5, 2.4, 2.6], "whole": [1.333, 0.9, 1.5]},
    }
    entry = {"sizes": {"slots": 8}, "rows": rows, "ratios": ratios}
    (tmp_path / "plain_llama.json").write_text(json.dumps({"comparisons": {"4 bits, 8 slots": entry}}))
    monkeypatch.setattr(readme_tables, "RESULTS", tmp_path)
    last = readme_tables.plain_llama().splitlines()[-1]
    assert "20 ms; a 30 ms | 1.50x (1.40 to 1.60) | 51 %" in last
    assert "1.5 s; b 2.0 s | 1.33x (0.90 to 1.50)" in last
