"""Which code made a result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from made_by import commit, made_by, words


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_commit_and_whether_files_but_results_differ_from_it(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    assert commit(tmp_path / "none") is None
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for path in (tmp_path / "a.py", results / "x.json"):
        path.write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    short = git(tmp_path, "rev-parse", "--short", "HEAD").strip()
    assert commit(tmp_path) == short
    (results / "x.json").write_text("2")  # what a run writes is no change of the code
    assert commit(tmp_path) == short
    (tmp_path / "a.py").write_text("2")
    assert commit(tmp_path) == f"{short}+changes"


def test_words() -> None:
    assert words({"cellscribe": "0.1.0", "commit": "0f58c63+changes", "library": "ab"}) == (
        "made by cellscribe 0.1.0, 0f58c63+changes, library ab"
    )
    assert words(None) == words({}) == "made before the code was kept"
    assert all(made_by().values())
