"""Versions that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("cellscribe", "onnxruntime", "numpy", "anndata", "tokenizers")


def versions() -> dict[str, str]:
    """Return name -> version of Python and of the packages that shape a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
