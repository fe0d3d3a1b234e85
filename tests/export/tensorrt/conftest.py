from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

# Building needs onnx, and the graphs that are built here torch; without the export extra there is nothing to test.
MISSING = [name for name in ("torch", "onnx", "onnxscript") if find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plans and kernels of these tests are listed and kept in a cache of their own."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["XDG_CACHE_HOME"]
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before
