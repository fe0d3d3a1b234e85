"""The manifest that seals a bundle in the making."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.manifest import MANIFEST_NAME, Manifest


def seal(manifest: Manifest, folder: Path, versions: Mapping[str, str]) -> Manifest:
    """Write the manifest with the versions and with the hashes of everything beside it that it does not know yet."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST_NAME:
            files[path.name] = manifest.files.get(path.name) or record(path)
    sealed = replace(manifest, files=files, versions=dict(versions))
    (folder / MANIFEST_NAME).write_text(sealed.to_json(), encoding="utf-8")
    return sealed
