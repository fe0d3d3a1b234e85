"""What the layout of AnnData needs of a container, be it an HDF5 file or a .zarr store."""

from __future__ import annotations

from typing import Any, Protocol

from cellscribe.engine.cells.limits import ReadLimits


class Members(Protocol):
    """Hands out groups and arrays after checking them.

    A group has `name`, `attrs` and `keys()`, an array `name`, `attrs`, `shape`, `ndim`, `dtype`, ``len``, ``[()]`` and
    slices of rows, as those of h5py have.
    """

    file: Any  # the root group
    name: str  # what to call the container in messages
    limits: ReadLimits

    def has(self, group: Any, key: str) -> bool:
        """Whether `group` has a member `key`, of whatever kind."""
        ...

    def member(self, group: Any, key: str) -> Any:
        """Return a group or a checked array; raise InputError when it is missing, linked or dishonest."""
        ...

    def dataset(self, group: Any, key: str) -> Any:
        """Return a checked array."""
        ...

    def whole(self, group: Any, key: str) -> Any:
        """Return a checked array of which no part is missing, as far as that can be told."""
        ...

    def group(self, parent: Any, key: str) -> Any:
        """Return a group."""
        ...

    def texts(self, dataset: Any) -> list[str]:
        """Return an array of texts [N]; raise InputError for anything else."""
        ...

    def scalar(self, dataset: Any) -> Any:
        """Return one number or text; None for anything else."""
        ...


def is_array(node: Any) -> bool:
    """Whether a member is an array, not a group."""
    return hasattr(node, "dtype")


def attribute(node: Any, key: str, default: str = "") -> str:
    """Return an attribute as text."""
    value = node.attrs.get(key, default)
    return value.decode() if isinstance(value, bytes) else str(value)
