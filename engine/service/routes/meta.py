"""``/v1/models``, ``/v1/cells``, ``/v1/uploads``, health and metrics."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from cellscribe.engine.service.addresses import is_loopback
from cellscribe.engine.service.bodies import HDF5, content_type
from cellscribe.engine.service.cell_files import DEMO, file_name
from cellscribe.engine.service.json_text import Json
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.service import Service
from cellscribe.engine.service.uploading import uploaded
from cellscribe.engine.types import MAX_NEW_TOKENS

router = APIRouter()
_NAME = Annotated[str, Query(max_length=200)]
_PATH = Annotated[str, Query(max_length=4_096)]  # as long as paths are


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """Say which bundle is loaded, what it can do, and within which bounds."""
    service: Service = request.app.state.service
    bundle, limits = service.bundle, service.limits
    told = {
        "id": bundle.name,
        "object": "model",
        "created": service.started,
        "owned_by": "cellscribe",
        "family": bundle.manifest.family,
        "tasks": list(service.tasks),
        "device": service.device,
        "precision": service.precision,
        "slots": service.num_slots,
        "needs_key": bool(service.settings.keys),
        "limits": {
            "cells": limits.cells,
            "genes": limits.genes,
            "labels": limits.labels,
            "max_new_tokens": MAX_NEW_TOKENS,
            "min_new_tokens": 1,
            "body_bytes": limits.body_bytes,
            "upload_bytes": limits.upload_bytes,
            "deadline_s": limits.deadline_s,
        },
    }
    return Json({"object": "list", "data": [told]})


@router.get("/v1/models/{name}")
async def model(request: Request, name: str) -> Response:
    """Say so of one bundle."""
    service: Service = request.app.state.service
    service.check_model(name)
    return Json({"id": name, "object": "model", "created": service.started, "owned_by": "cellscribe"})


@router.get("/v1/cells")
async def cells(
    request: Request, source: _NAME = DEMO, column: Annotated[str | None, Query(max_length=500)] = None
) -> Response:
    """List the cells of a file that can be picked from, with a map and groups."""
    _check_options(request, "source", "column")
    service: Service = request.app.state.service
    is_local = request.client is not None and is_loopback(request.client.host)
    file = await service.threads.use_file(lambda: service.files.get(source))
    return Json(await service.listing(file, column, is_local))


@router.post("/v1/uploads", status_code=201)
async def upload(
    request: Request, name: _PATH = "upload.h5ad", values: Literal["auto", "counts", "lognorm"] = "auto"
) -> Response:
    """Take in a file to pick cells from; it is forgotten a while after its last use."""
    _check_options(request, "name", "values")
    service: Service = request.app.state.service
    if content_type(request) not in HDF5:
        raise RequestError(415, f"send the bytes of an .h5ad file, and say so: Content-Type: {HDF5[0]}.")
    file = await uploaded(service, request, file_name(name), values)
    try:
        listing = await service.listing(file, None)
    except BaseException:
        service.files.drop(file)
        raise
    return Json(listing, status_code=201)


@router.delete("/v1/uploads/{upload_id}", status_code=204)
async def remove(request: Request, upload_id: str) -> Response:
    """Forget a file."""
    service: Service = request.app.state.service
    await service.in_thread(lambda: service.files.remove(upload_id))
    return Response(status_code=204)


@router.get("/health/live")
async def live(request: Request) -> Response:
    """Answer for as long as the process does; 503 once the model has failed for good, and a restart is due."""
    if request.app.state.service.has_failed:
        return Json({"status": "failed"}, status_code=503)
    return Json({"status": "live"})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Say whether requests are answered: 503 while the model is loaded, and from the moment of the shutdown on."""
    service: Service = request.app.state.service
    if service.is_ready:
        return Json({"status": "ready"})
    status = "failed" if service.has_failed else "shutting down" if service.is_closing else "loading"
    return Json({"status": status}, status_code=503)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Give all figures to Prometheus."""
    service: Service = request.app.state.service
    await asyncio.to_thread(service.files.sweep)  # also where nobody asks for files any more
    return Response(service.metrics.text(), headers={"Content-Type": service.metrics.CONTENT_TYPE})


def _check_options(request: Request, first: str, second: str) -> None:
    """Refuse options that nobody reads: one that is misspelt would go unheard."""
    stray = next((name for name in request.query_params if name not in (first, second)), None)
    if stray is not None:
        raise RequestError(
            422, f"{stray[:100]!r} is no option of this address; give {first} or {second}, or leave it out.",
            "".join(c for c in stray if c.isprintable())[:200],
        )  # fmt: skip
