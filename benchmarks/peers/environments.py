"""One virtual environment per peer, made on demand from pinned requirements.

A stamp holds the hash of what an environment was made from, so that a second call costs nothing and a changed file
makes it anew. `pip freeze` is kept beside it. What cannot be made is a sentence in a table, never a crash.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements")
HERE = "here"  # the environment that runs this: it has cellscribe, and torch with the export extra
_STAMP = ".made-from"
_INSTALL_SECONDS = 3600


@dataclass(frozen=True)
class Recipe:
    """What an environment must be able to import, and variables for building its packages."""

    imports: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


RECIPES = {
    "torch": Recipe(("torch", "transformers")),
    "optimum_onnx": Recipe(("optimum.onnxruntime",)),
    "onnxruntime_genai": Recipe(("onnxruntime_genai",)),
    "ctranslate2": Recipe(("ctranslate2",)),
    # Built from source for this processor; parts that read images and serve requests are left out.
    "llama_cpp": Recipe(("llama_cpp", "gguf"), {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"}),
}


@dataclass(frozen=True)
class Environment:
    """An interpreter with a peer's packages, or why there is none."""

    name: str
    python: Path | None
    why: str = ""


def default_folder() -> Path:
    """Return the folder of environments, models and logs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cellscribe" / "bench"


def environment(name: str, folder: Path | None = None, *, make: bool = True) -> Environment:
    """Return an environment, making it where it is not there.

    Parameters
    ----------
    name
        A name of `RECIPES`, or `HERE`.
    folder
        Where environments are kept (``envs/NAME``); None takes `default_folder`.
    make
        False only looks.
    """
    if name == HERE:
        missing = [one for one in ("torch", "cellscribe") if find_spec(one) is None]
        why = f"{' and '.join(missing)} not installed here; install the `export` extra" if missing else ""
        return Environment(name, None if missing else Path(sys.executable), why)
    root = (folder or default_folder()) / "envs" / name
    python = root / "bin" / "python"
    key = stamp(name)
    made = root / _STAMP
    if made.is_file() and made.read_text() == key:
        return Environment(name, python)
    if not make:
        return Environment(name, None, f"the environment {name} has not been made")
    why = _make(name, root, key)
    return Environment(name, None if why else python, why)


def stamp(name: str) -> str:
    """Return the hash of what an environment is made from: requirements, Python's version, build variables."""
    recipe = RECIPES[name]
    parts = (
        (REQUIREMENTS / f"{name}.txt").read_text(),
        "{}.{}".format(*sys.version_info),
        repr(sorted(recipe.variables.items())),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _make(name: str, root: Path, key: str) -> str:
    """Make an environment; return why it could not be made, or nothing."""
    log = root.parent.parent / "logs" / f"{name}.install.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    recipe, python = RECIPES[name], str(root / "bin" / "python")
    steps = [
        [python, "-m", "pip", "install", "-r", str(REQUIREMENTS / f"{name}.txt")],
        [python, "-c", f"import {', '.join(recipe.imports)}"],
    ]
    if not Path(python).exists():
        shutil.rmtree(root, ignore_errors=True)
        steps.insert(0, [sys.executable, "-m", "venv", str(root)])
    with log.open("w") as file:
        for step in steps:
            try:
                done = subprocess.run(
                    step, env={**os.environ, **recipe.variables}, stdout=file, stderr=file, check=False,
                    timeout=_INSTALL_SECONDS,
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"the environment {name} cannot be made: {' '.join(str(error).split())[:200]}"
            if done.returncode:
                return f"the environment {name} cannot be made: {_last_line(log)}"
    frozen = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=False)
    (root / "freeze.txt").write_text(frozen.stdout)
    (root / _STAMP).write_text(key)
    return ""


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["nothing was said"])[-1][:200]
