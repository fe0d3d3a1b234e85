"""``/v1/annotate``, ``/v1/embed`` and ``/v1/generate`` of bundles that are called for batches."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anndata import AnnData
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cellscribe.engine.labels import Labels, labels_of
from cellscribe.engine.output.h5ad import write_new
from cellscribe.engine.service import call_answers
from cellscribe.engine.service.bodies import HDF5, json_body
from cellscribe.engine.service.calling import CallService
from cellscribe.engine.service.calls import Caller
from cellscribe.engine.service.families.base import CellWish, Embedding, Labelling
from cellscribe.engine.service.orders import Answered
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.routes.describe import sampling_of
from cellscribe.engine.service.schemas import AnnotateBody, EmbedBody, GenerateBody
from cellscribe.engine.service.streaming import unless_gone

router = APIRouter()


@router.post("/v1/annotate")
async def annotate(request: Request) -> Response:
    """Label cells, freely or from a list."""
    service: CallService = request.app.state.service
    service.check_task("annotate")
    body = await json_body(request, AnnotateBody, service.limits.body_bytes, service.limits.idle_s)
    service.check_model(body.model)
    wish = Labelling(_labels(body.labels, service.limits.labels), body.scores, body.max_new_tokens)
    ready = await service.read(body, wish)
    caller = Caller("annotate", request.state.client, service.deadline(body.deadline_s))
    call = service.call(ready.items, ready.work, caller)
    found = await unless_gone(request, call.results(), call.leave)
    status, labels = service.family.labelled(wish, ready.items, [one.outcome for one in found])
    _count(service, "annotate", found, [one == "ok" for one in status])
    results = call_answers.labels(ready.items, status, labels, body.scores)
    return JSONResponse(_head(service, "annotation.list") | {"results": results, "genes": ready.genes})


@router.post("/v1/embed")
async def embed(request: Request) -> Response:
    """Embed cells."""
    service: CallService = request.app.state.service
    service.check_task("embed")
    body = await json_body(request, EmbedBody, service.limits.body_bytes, service.limits.idle_s)
    service.check_model(body.model)
    ready = await service.read(body, Embedding())
    caller = Caller("embed", request.state.client, service.deadline(body.deadline_s))
    call = service.call(ready.items, ready.work, caller)
    found = await unless_gone(request, call.results(), call.leave)
    results = call_answers.vectors(ready.items, [one.outcome for one in found])
    _count(service, "embed", found, [one["status"] == "ok" for one in results])
    told = {"dimensions": service.family.width, "results": results, "genes": ready.genes}
    return JSONResponse(_head(service, "embedding.list") | told)


@router.post("/v1/generate")
async def generate(request: Request) -> Response:
    """Write cells: as JSON, or as an .h5ad file where the client accepts application/x-hdf5."""
    service: CallService = request.app.state.service
    service.check_task("generate")
    body = await json_body(request, GenerateBody, service.limits.body_bytes, service.limits.idle_s)
    service.check_model(body.model)
    wish = _wish(body, service.limits.cells, service.seed(body.seed))
    service.deadline(body.deadline_s)
    order = await service.in_thread(lambda: service.family.order(wish))
    caller = Caller("generate", request.state.client, service.deadline(body.deadline_s))
    call = service.call(order.items, order.work, caller)
    found = await unless_gone(request, call.results(), call.leave)
    outcomes, like = [one.outcome for one in found], service.files.demo
    written = await service.in_thread(lambda: service.family.written(order, outcomes, like))
    for i in range(wish.count):
        service.metrics.answered("generate", i < written.cells.n_obs, max(one.latency_s for one in found))
    if HDF5[0] in request.headers.get("accept", ""):
        file = await service.in_thread(lambda: _file(written.cells))
        return Response(file, media_type=HDF5[0], headers={"Content-Disposition": 'attachment; filename="cells.h5ad"'})
    told = {"results": call_answers.cells(written), "values": written.values, "said": written.said}
    return JSONResponse(_head(service, "cell.list") | told)


def _labels(given: Sequence[str] | Mapping[str, str | None] | None, most: int) -> Labels | None:
    if given is not None and len(given) > most:
        raise RequestError(413, f"{len(given)} labels are more than {most}; give fewer.", "labels")
    return labels_of(given)


def _wish(body: GenerateBody, most: int, seed: int) -> CellWish:
    if body.n > most:
        raise RequestError(413, f"{body.n} cells are more than {most}; ask for them in several requests.", "n")
    is_drawn = bool({"temperature", "top_p"} & body.model_fields_set)
    sampling = sampling_of(body.temperature, body.top_p, seed)
    return CellWish(body.n, body.cell_type, body.tissue, sampling, is_drawn, body.max_new_tokens)


def _head(service: CallService, kind: str) -> dict[str, Any]:
    return {
        "id": f"{kind.split('.')[0]}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": service.bundle.name,
    }


def _count(service: CallService, task: str, found: Sequence[Answered], are_ok: Sequence[bool]) -> None:
    for one, is_ok in zip(found, are_ok, strict=True):
        service.metrics.answered(task, is_ok, one.latency_s)


def _file(cells: AnnData) -> bytes:
    with tempfile.TemporaryDirectory(prefix="cellscribe-cells-") as folder:
        path = Path(folder) / "cells.h5ad"
        write_new(cells, path)
        return path.read_bytes()
