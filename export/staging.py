"""A bundle in the making: checks of its target, a temporary folder beside it, and the manifest that seals it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.manifest import MANIFEST_NAME, Manifest
from cellscribe.engine.errors import OutputError


def check_target(bundle: Path) -> None:
    """Raise OutputError unless a new bundle can be made at a place."""
    if bundle.exists():
        raise OutputError(f"{bundle} exists already; choose another name, or remove it first.")
    if not bundle.resolve().parent.is_dir():
        raise OutputError(f"the folder {bundle.resolve().parent} does not exist; make it, or choose another place.")
    if not os.access(bundle.resolve().parent, os.W_OK):
        raise OutputError(f"the folder {bundle.resolve().parent} cannot be written; choose another place.")


@contextmanager
def staging(bundle: Path) -> Iterator[Path]:
    """Build in a temporary folder beside the target and rename it when all is done; leave nothing behind otherwise."""
    target = bundle.resolve()
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{target.parent} cannot be written ({error.strerror}); choose another place.") from error
    try:
        yield folder
        _publish(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, target: Path) -> None:
    try:
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.chmod(0o644)
        folder.rename(target)
    except OSError as error:
        raise OutputError(f"{target} could not be written ({error.strerror}); choose another place.") from error


def seal(manifest: Manifest, folder: Path, versions: Mapping[str, str]) -> Manifest:
    """Write the manifest with the versions and with the hashes of everything beside it that it does not know yet."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST_NAME:
            files[path.name] = manifest.files.get(path.name) or record(path)
    sealed = replace(manifest, files=files, versions=dict(versions))
    (folder / MANIFEST_NAME).write_text(sealed.to_json(), encoding="utf-8")
    return sealed
