"""One model for all tests of the service, and one running service a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd
import pytest

from cellscribe.engine.model import Model, load
from cellscribe.engine.packaged import packaged_cells

if any(find_spec(name) is None for name in ("fastapi", "prometheus_client", "uvicorn")):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def demo() -> Model:
    """The packaged bundle."""
    model = load("demo", threads=2)
    assert isinstance(model, Model)
    return model


@pytest.fixture(scope="session")
def cells() -> ad.AnnData:
    """The first 24 packaged cells, counts in X."""
    return ad.read_h5ad(packaged_cells())[:24].copy()


@pytest.fixture(scope="session")
def described(demo: Model, cells: ad.AnnData) -> pd.DataFrame:
    """What the engine writes about them, by cell name."""
    return demo.describe(cells, max_new_tokens=32, copy=True)


@pytest.fixture(scope="session")
def cells_path(cells: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cells as a file."""
    path = tmp_path_factory.mktemp("service") / "few.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def running(demo: Model) -> Iterator[Any]:
    """A running service with the usual limits."""
    from running_service import Running, made_service

    with Running(made_service(demo)) as found:
        yield found


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    """A service of a bundle that reads sentences, and its client."""
    from called import called

    with called("demo-c2s") as found:
        yield found


@pytest.fixture
def serving(demo: Model) -> Iterator[Callable[..., Any]]:
    """Start services of one's own: serving(num_slots=2, keys=("k",), uploads=2); limits by their names."""
    from running_service import Running, made_service

    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Running(made_service(demo, **options)))


@pytest.fixture
def odd(demo: Model) -> Iterator[Callable[..., Any]]:
    """Start services over odd backends: odd(OddBackend(demo, pause=0.01), num_slots=2)."""
    from odd_backend import OddBackend, odd_model
    from running_service import Running, made_service

    open_ones: list[tuple[Running, OddBackend]] = []

    def start(backend: OddBackend, **options: Any) -> Running:
        found = Running(made_service(odd_model(demo, backend), **options))
        open_ones.append((found.__enter__(), backend))
        return found

    yield start
    for one, backend in open_ones:
        backend.gate.set()
        one.__exit__()
