"""Where plans lie, which of them this user built, and where kernels that were compiled for a card are kept.

A plan is native code, so one that came with a bundle is not opened by itself: building lists it in the user's cache, by
the hash of its ``plan.json``, which holds the hashes of its files. Naming a folder (``--plans``) counts as trust, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
from pathlib import Path

from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.packaged import packaged_name

PLANS = "plans"


def cache_folder() -> Path:
    """Return the user's cache for this package."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cellscribe"


def graphs_hash(bundle: Bundle) -> str:
    """Return one hash of a bundle's graphs and weights, from the hashes that its manifest gives."""
    named = {n: f.sha256 for n, f in bundle.manifest.files.items() if n.endswith((".onnx", ".data"))}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def plan_homes(bundle: Bundle, output: Path | None = None) -> tuple[Path, ...]:
    """Return the folders that may hold plans of a bundle: `output`, or the bundle's own and the user's cache."""
    if output is not None:
        return (output,)
    return bundle.folder / PLANS, cache_folder() / PLANS / graphs_hash(bundle)[:16]


def writable_home(bundle: Bundle, output: Path | None = None) -> Path:
    """Return where a new plan goes: the bundle's own folder.

    The user's cache takes those of a read-only bundle, and of the packaged one, which belongs to the installer.
    """
    homes = plan_homes(bundle, output)
    if len(homes) == 1:
        return homes[0]
    if packaged_name(bundle.folder) is not None:
        return homes[1]
    own = homes[0] if homes[0].exists() else homes[0].parent
    return homes[0] if os.access(own, os.W_OK) else homes[1]


def build_command(bundle: Bundle, *options: str, home: Path | None = None) -> str:
    """Return the whole command that builds a plan for this machine; `home` is where its plans were looked for."""
    where = packaged_name(bundle.folder) or shlex.quote(str(bundle.folder))
    if home is not None and home not in plan_homes(bundle):
        options = (*options, f"--output {shlex.quote(str(home))}")
    return f"`{' '.join(['cellscribe build', where, '--target this', *options])}`"


def trust(digest: str) -> bool:
    """List a plan as this user's own, by the hash of its plan.json; False where that cannot be written."""
    path = _listed(digest)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return path.is_file()


def is_trusted(digest: str) -> bool:
    """Whether this user built a plan."""
    return _listed(digest).is_file()


def jit_file(plan_sha256: str) -> Path:
    """Return the file of the kernels that were compiled for one plan file."""
    return cache_folder() / "jit" / f"{plan_sha256}.jit"


def _listed(digest: str) -> Path:
    return cache_folder() / "built" / digest
