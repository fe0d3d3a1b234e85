"""What of a .zarr store may be touched: plain files of it, by metadata that are checked before zarr sees them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore, StorePath

from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.zarr_metadata import ArrayFacts, array_facts
from cellscribe.engine.cells.zarr_nodes import ZarrArray, ZarrGroup
from cellscribe.engine.errors import InputError

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_MAX_METADATA = 64 << 20
_TICK_FILES = 20_000


class ZarrGuard:
    """Hands out members of one store after checking them; see :class:`Members`."""

    def __init__(self, folder: Path, name: str, limits: ReadLimits, tick: Callable[[], None]) -> None:
        self.name, self.limits, self._tick = name, limits, tick
        self._store = LocalStore(folder, read_only=True)
        self._folder = folder
        self.file = self._open(folder, "/")
        if not isinstance(self.file, ZarrGroup):
            raise InputError(f"{name} is one array and no .zarr store of cells; write it with anndata.")

    def has(self, group: Any, key: str) -> bool:
        """Whether `group` has a member `key`, of whatever kind."""
        is_name = key not in ("", ".", "..") and not set(key) & {"/", "\0"}
        return is_name and isinstance(group, ZarrGroup) and os.path.lexists(group.path / key)

    def member(self, group: Any, key: str) -> Any:
        """Return a group or a checked array; raise InputError when it is missing, linked or dishonest."""
        path = f"{group.name.rstrip('/')}/{key}".lstrip("/")
        if not self.has(group, key):
            raise InputError(f"{self.name} has no {path}, so it is not complete; write it again, or fetch it again.")
        return self._open(group.path / key, f"/{path}")

    def dataset(self, group: Any, key: str) -> ZarrArray:
        """Return a checked array."""
        found = self.member(group, key)
        if not isinstance(found, ZarrArray):
            raise InputError(f"{self.name}: {found.name} is a group where data are expected; write it with anndata.")
        return found

    def whole(self, group: Any, key: str) -> ZarrArray:
        """Return a checked array of which no chunk is missing (zarr would give zeros for it)."""
        found = self.dataset(group, key)
        if found.num_missing:
            raise InputError(
                f"{self.name}: {found.num_missing:,} chunks of {found.name} are missing, so it is not complete; fetch "
                "it again."
            )
        return found

    def group(self, parent: Any, key: str) -> ZarrGroup:
        """Return a group."""
        found = self.member(parent, key)
        if not isinstance(found, ZarrGroup):
            raise InputError(f"{self.name}: {found.name} is not a group; write the store with anndata.")
        return found

    def texts(self, dataset: Any) -> list[str]:
        """Return an array of texts [N]; raise InputError for anything else."""
        if not dataset.is_text or dataset.ndim != 1:
            raise InputError(
                f"{self.name}: {dataset.name} holds {dataset.dtype}, where names belong; write it with anndata."
            )
        return [one.decode() if isinstance(one, bytes) else str(one) for one in dataset[()].tolist()]

    def scalar(self, dataset: Any) -> Any:
        """Return one number or text; None for anything else."""
        return dataset[()].item() if dataset.shape == () else None

    def _open(self, path: Path, name: str) -> ZarrGroup | ZarrArray:
        where = f"{name.lstrip('/') or 'the root'} of {self.name}"
        if path.is_symlink() and name != "/":
            raise InputError(f"{where} is a link; store the data itself (copy it with adata.write_zarr).")
        metadata = self._metadata(path, where)
        attrs = metadata.get("attributes")
        attrs = attrs if isinstance(attrs, dict) else {}
        if metadata.get("node_type") == "group":
            return ZarrGroup(path, name, attrs)
        facts = array_facts(metadata, where)
        num_missing = facts.num_chunks - self._check_files(path, facts, where)
        array = zarr.Array.from_dict(StorePath(self._store, name.lstrip("/")), metadata)
        return ZarrArray(array, facts, name, attrs, num_missing)

    def _metadata(self, path: Path, where: str) -> dict[str, Any]:
        """Return the metadata of a node in the words of format 3 where it is a group, as they are for an array."""
        if (found := self._json(path / "zarr.json", where)) is not None:
            if found.get("zarr_format") != 3 or found.get("node_type") not in ("group", "array"):
                raise InputError(f"The metadata of {where} are damaged; write the store again.")
            return found
        attributes = {"attributes": self._json(path / ".zattrs", where) or {}}
        if (found := self._json(path / ".zarray", where)) is not None:
            return {**found, **attributes, "zarr_format": 2}
        if self._json(path / ".zgroup", where) is not None:
            return {"node_type": "group", **attributes}
        raise InputError(f"{where} has no metadata, so the store is not complete; write it again, or fetch it again.")

    def _json(self, path: Path, where: str) -> dict[str, Any] | None:
        if not os.path.lexists(path):
            return None
        _check_plain(path, where)
        if path.stat().st_size > _MAX_METADATA:
            raise InputError(f"The metadata of {where} exceed {_MAX_METADATA:,} bytes, so they are damaged or hostile.")
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(f"The metadata of {where} are no JSON; write the store again.") from error
        if not isinstance(found, dict):
            raise InputError(f"The metadata of {where} are damaged; write the store again.")
        return found

    def _check_files(self, folder: Path, facts: ArrayFacts, where: str) -> int:
        """Return how many files of chunks there are."""
        stored = count = 0
        for path in self._files(folder):
            size = _check_plain(path, where)
            stored, count = stored + size, count + 1
            if facts.packer == "blosc":
                _check_blosc(path, size, where)
        declared = facts.declared_bytes
        if declared > self.limits.free_bytes and declared > self.limits.max_expansion * stored:
            raise InputError(
                f"{where} declares {declared:,} bytes but stores {stored:,}, so it is damaged or hostile; write it "
                "again from the original data with adata.write_zarr."
            )
        return count

    def _files(self, folder: Path) -> Iterator[Path]:
        """Yield the chunks of an array; what is no folder counts, links to folders among it."""
        number = 0
        for root, folders, files in os.walk(folder):
            for name in [*files, *(one for one in folders if os.path.islink(os.path.join(root, one)))]:
                number += 1
                if number % _TICK_FILES == 0:
                    self._tick()
                if name not in _METADATA:
                    yield Path(root, name)


def _check_plain(path: Path, where: str) -> int:
    """Return the size of a regular file; refuse anything else."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise InputError(f"{where} has a link ({path.name}); store the data itself (copy it with adata.write_zarr).")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{where} has {path.name}, which is not a regular file; write the store again.")
    return status.st_size


def _check_blosc(path: Path, size: int, where: str) -> None:
    """Refuse a chunk that is not as long as it says: blosc would read on beyond its end."""
    with path.open("rb") as file:
        head = file.read(16)
    if len(head) < 16 or int.from_bytes(head[12:], "little") != size:
        raise InputError(f"{where}: the chunk {path.name} is truncated or damaged; fetch the store again.")
