"""The folder of a plan: built beside its place, sealed, and put there whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cellscribe.engine.backends.tensorrt.homes import is_trusted, trust
from cellscribe.engine.backends.tensorrt.plan import PLAN_NAME, SCHEMA_VERSION, Plan, Recipe, read_plan
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.manifest import FileRecord
from cellscribe.engine.errors import OutputError, PlanError

_TRIES, _DAY = 20, 86400
_STAGED = ".*-sm*-b*-g*-*"  # what staging makes of a recipe's folder_name
_RACES = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)  # somebody else put a plan there, or took it away
_FULL = (errno.ENOSPC, errno.EDQUOT)


def matching(home: Path, recipe: Recipe, *, is_given: bool) -> Plan | None:
    """Return the plan that is there already, if it is whole, of the same recipe, and this user's own.

    `is_given` means that the user named the folder, and so trusts it.
    """
    folder = home / recipe.folder_name
    if not (folder / PLAN_NAME).is_file():
        return None
    try:
        plan = read_plan(folder)
        whole = all(record(folder / name) == expected for name, expected in plan.files.items())
    except (PlanError, OSError):
        return None
    if not is_given and not is_trusted(plan.digest):
        return None
    return plan if whole and plan.recipe.hash == recipe.hash else None


@contextmanager
def staging(home: Path, name: str, *, is_given: bool) -> Iterator[Path]:
    """Make a temporary folder beside the place of a plan, which is gone after the block.

    Raises
    ------
    OutputError
        When it cannot be made, or what the block writes cannot be written.
    """
    other = "choose another one with --output" if is_given else "choose a folder with --output"
    try:
        home.mkdir(parents=True, exist_ok=True)
        _sweep(home)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
    except OSError as error:
        raise OutputError(f"{home} cannot be written ({error.strerror}); {other}.") from error
    try:
        yield folder
    except OSError as error:
        mend = "free the space first" if error.errno in _FULL else other
        raise OutputError(f"{home / name} could not be written ({error.strerror}); {mend}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(home: Path) -> None:
    """Remove what builds that were killed left behind, a day ago or longer."""
    for path in home.glob(_STAGED):
        with contextlib.suppress(OSError):
            if not path.is_symlink() and time.time() - path.stat().st_mtime > _DAY:
                shutil.rmtree(path, ignore_errors=True)


def seal(folder: Path, recipe: Recipe, seconds: dict[str, float]) -> bool:
    """Write plan.json, and list the plan as this user's own; False where it could not be listed."""
    files: dict[str, FileRecord] = {path.name: record(path) for path in sorted(folder.glob("*.plan"))}
    text: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "recipe": asdict(recipe),
        "recipe_hash": recipe.hash,
        "files": {name: asdict(one) for name, one in files.items()},
        "build_seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
    (folder / PLAN_NAME).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    folder.chmod(0o755)
    return trust(read_plan(folder).digest)


def place(folder: Path, home: Path, recipe: Recipe, *, is_given: bool) -> Plan:
    """Put a sealed folder in its place, instead of what is there.

    Where another process does the same at the same time, its plan is as good as this one: another user's is taken
    only where `is_given`, as by :func:`matching`.
    """
    target = home / recipe.folder_name
    for left in reversed(range(_TRIES)):
        try:
            if target.exists():
                stale = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}")
                os.rename(target, stale)
                shutil.rmtree(stale, ignore_errors=True)
            os.rename(folder, target)
            return read_plan(target)
        except OSError as error:
            if error.errno not in _RACES or not left:
                raise
            if (plan := matching(home, recipe, is_given=is_given)) is not None:
                return plan
    raise AssertionError("unreachable")
