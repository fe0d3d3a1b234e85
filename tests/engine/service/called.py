"""Services of bundles that are called for batches, over a client without a socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from anndata import AnnData
from starlette.testclient import TestClient

from cellscribe.engine.model import load
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.service.app import create_app
from cellscribe.engine.service.calling import CallService
from cellscribe.engine.service.choosing import service_of
from cellscribe.engine.service.limits import ServiceLimits
from cellscribe.engine.service.service import ServiceSettings

Served = tuple[CallService, TestClient]
LABELS = ["B cell", "CD14-positive monocyte", "natural killer cell"]


@contextmanager
def called(bundle: str | Path, demo: Path | None = None, **limits: Any) -> Iterator[tuple[CallService, TestClient]]:
    """Serve a bundle with eight slots."""
    settings = ServiceSettings(num_slots=8, limits=ServiceLimits(**limits))
    service = service_of(load(bundle, threads=2), demo or packaged_cells(), settings)
    assert isinstance(service, CallService)
    service.start()
    try:
        with TestClient(create_app(service), raise_server_exceptions=False) as client:
            yield service, client
    finally:
        service.drain(30.0)
        service.close()


@contextmanager
def held(service: CallService) -> Iterator[None]:
    """Keep the model's thread busy, so that what is asked for meanwhile waits."""
    begun, ended = Event(), Event()

    def job() -> None:
        begun.set()
        ended.wait(60)

    future = service.desk.beside(job)
    assert begun.wait(60)
    try:
        yield
    finally:
        ended.set()
        future.result(60)


def cell_bodies(cells: AnnData) -> list[dict[str, Any]]:
    """Return cells as gene maps, as a client sends them."""
    found = []
    for i, name in enumerate(cells.obs_names):
        row = np.asarray(cells.X[i].todense() if hasattr(cells.X, "todense") else cells.X[i]).ravel()
        pairs = zip(cells.var_names, row.tolist(), strict=True)
        found.append({"id": str(name), "genes": {gene: float(value) for gene, value in pairs if value}})
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so, a minute at most."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def post(client: TestClient, path: str, body: Any, **more: Any) -> Any:
    """Ask, and return the answer's JSON."""
    found = client.post(f"/v1/{path}", json=body, **more)
    assert found.status_code == 200, found.text
    return found.json()


def refused(client: TestClient, path: str, body: Any) -> tuple[int, str]:
    """Ask for what is refused, and return the status and the sentence."""
    found = client.post(f"/v1/{path}", json=body)
    message = found.json()["error"]["message"]
    assert message.endswith("."), message
    return found.status_code, message
