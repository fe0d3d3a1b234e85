"""Which code made a result of this folder: version, commit where there is one, and the native library."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from cellscribe.engine.bench.made_by import library_hash
from cellscribe.engine.versions import versions

ROOT = Path(__file__).resolve().parents[1]
UNKNOWN = "made before the code was kept"


def made_by() -> dict[str, str]:
    """Return version, commit and library of the code that runs; without what cannot be told."""
    found = {"cellscribe": versions().get("cellscribe"), "commit": commit(), "library": library_hash()}
    return {name: value for name, value in found.items() if value}


def commit(root: Path = ROOT) -> str | None:
    """Return the commit of a checkout, with "+changes" where files but results differ from it; None outside of one."""
    try:
        found = _git(root, "rev-parse", "--short", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{found}+changes" if changes else found


def words(made: Mapping[str, str] | None) -> str:
    """Say which code made an entry."""
    if not made:
        return UNKNOWN
    return "made by " + ", ".join(value if name == "commit" else f"{name} {value}" for name, value in made.items())


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()
