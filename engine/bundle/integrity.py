"""Checks made before a byte of a bundle reaches a runtime."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cellscribe.engine.bundle.manifest import MANIFEST_NAME, FileRecord, Manifest
from cellscribe.engine.bundle.onnx_external import external_data
from cellscribe.engine.errors import BundleError

_BLOCK = 1 << 22


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def record(path: Path) -> FileRecord:
    """Return size and hash of a file, for a manifest."""
    return FileRecord(path.stat().st_size, sha256(path))


def bundle_hash(folder: Path) -> str:
    """Return the identity of a bundle: the SHA-256 of its manifest, which holds the hashes of everything else."""
    return sha256(folder / MANIFEST_NAME)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check that every file of the manifest is there, plain, of the right size and content, and stays in its folder.

    Raises
    ------
    BundleError
        On the first file that is not what the manifest says.
    """
    for name, expected in manifest.files.items():
        _check_place(folder, name, expected)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        hashes = dict(zip(manifest.files, pool.map(lambda n: sha256(folder / n), manifest.files), strict=True))
    for name, expected in manifest.files.items():
        if hashes[name] != expected.sha256:
            raise BundleError(
                f"{folder / name} does not have the hash that the manifest gives; "
                "copy the bundle again or export it anew."
            )
    for name in manifest.files:
        if name.endswith(".onnx"):
            _check_external(folder, name, manifest)


def _check_place(folder: Path, name: str, expected: FileRecord) -> None:
    path = folder / name
    if Path(name).name != name or name in ("", ".", "..", MANIFEST_NAME) or "\\" in name:
        raise BundleError(
            f"{folder}: the manifest names {name!r}, which is not a plain file name; do not use this bundle."
        )
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise BundleError(f"{path} is a link or not a regular file; copy the bundle with the files themselves.")
    if not path.exists():
        raise BundleError(f"{path} is missing; copy the whole bundle again or export it anew.")
    if path.stat().st_size != expected.bytes:
        raise BundleError(
            f"{path} has {path.stat().st_size} bytes where the manifest says {expected.bytes}; copy the bundle again."
        )


def _check_external(folder: Path, name: str, manifest: Manifest) -> None:
    for reference in external_data(folder / name):
        where = manifest.files.get(reference.location)
        if where is None:
            raise BundleError(
                f"{folder / name} takes weights from {reference.location!r}, which is not a file of this bundle; "
                "do not use it, export the bundle anew."
            )
        length = reference.length or 0
        if reference.offset < 0 or length < 0 or reference.offset + length > where.bytes:
            raise BundleError(f"{folder / name} points past the end of {reference.location}; export the bundle anew.")
