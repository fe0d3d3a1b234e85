"""``/v1/annotate``, ``/v1/embed`` and ``/v1/generate`` of bundles that are called for batches."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from anndata import AnnData
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cellscribe.engine.labels import Labels, labels_of
from cellscribe.engine.output.h5ad import write_new
from cellscribe.engine.service import call_answers
from cellscribe.engine.service.answers import head
from cellscribe.engine.service.bodies import HDF5
from cellscribe.engine.service.calling import CallService
from cellscribe.engine.service.calls import Caller
from cellscribe.engine.service.families.base import CellWish, Embedding, Item, Labelling, ReadyCells, Wish, Work
from cellscribe.engine.service.json_text import Json
from cellscribe.engine.service.orders import Answered
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.routes.asked import asked, asked_with_file, sampling_of
from cellscribe.engine.service.schemas import AnnotateBody, AnnotateFile, Cells, EmbedBody, FileOptions, GenerateBody
from cellscribe.engine.service.streaming import unless_gone
from cellscribe.engine.service.uploading import of_upload

router = APIRouter()


@router.post("/v1/annotate")
async def annotate(request: Request) -> Response:
    """Label cells, freely or from a list."""
    service: CallService = request.app.state.service
    options = await asked_with_file(request, "annotate", AnnotateBody, AnnotateFile)
    wish = Labelling(_labels(options.labels, service.limits.labels), options.scores, options.max_new_tokens)
    ready = await _ready(request, options, wish)
    found = await _called(request, "annotate", ready.items, ready.work, options.deadline_s)
    status, labels = service.family.labelled(wish, ready.items, [one.outcome for one in found])
    _count(service, "annotate", found, [one == "ok" for one in status])
    results = call_answers.labels(ready.items, status, labels, options.scores)
    told = {"results": results, "genes": ready.genes}
    return Json(head("annotation", "annotation.list", service.bundle.name) | told)


@router.post("/v1/embed")
async def embed(request: Request) -> Response:
    """Embed cells."""
    service: CallService = request.app.state.service
    options = await asked_with_file(request, "embed", EmbedBody, FileOptions)
    ready = await _ready(request, options, Embedding())
    found = await _called(request, "embed", ready.items, ready.work, options.deadline_s)
    results = call_answers.vectors(ready.items, [one.outcome for one in found])
    _count(service, "embed", found, [one["status"] == "ok" for one in results])
    told = {"dimensions": service.family.width, "results": results, "genes": ready.genes}
    return Json(head("embedding", "embedding.list", service.bundle.name) | told)


@router.post("/v1/generate")
async def generate(request: Request) -> Response:
    """Write cells: as JSON, or as an .h5ad file where the client accepts application/x-hdf5."""
    service: CallService = request.app.state.service
    body = await asked(request, "generate", GenerateBody)
    wish = _wish(body, service.limits.cells, service.seed(body.seed))
    service.deadline(body.deadline_s)
    order = await service.in_thread(lambda: service.family.order(wish))
    found = await _called(request, "generate", order.items, order.work, body.deadline_s)
    outcomes, like = [one.outcome for one in found], service.files.demo
    written = await service.in_thread(lambda: service.family.written(order, outcomes, like))
    for i in range(wish.count):
        service.metrics.answered("generate", i < written.cells.n_obs, max(one.latency_s for one in found))
    if HDF5[0] in request.headers.get("accept", ""):
        file = await service.in_thread(lambda: _file(written.cells))
        return Response(file, media_type=HDF5[0], headers={"Content-Disposition": 'attachment; filename="cells.h5ad"'})
    told = {"results": call_answers.cells(written), "values": written.values, "said": written.said}
    return Json(head("cell", "cell.list", service.bundle.name) | told)


async def _ready(request: Request, options: Cells | FileOptions, wish: Wish) -> ReadyCells:
    service: CallService = request.app.state.service
    if isinstance(options, Cells):
        return await service.read(options, wish)
    return await of_upload(service, request, options.values, lambda file: service.of_file(file, None, wish))


async def _called(
    request: Request, task: str, items: Sequence[Item], work: Work, deadline_s: float | None
) -> list[Answered]:
    service: CallService = request.app.state.service
    call = service.call(items, work, Caller(task, request.state.client, service.deadline(deadline_s)))
    return await unless_gone(request, call.results(), call.leave)


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


def _count(service: CallService, task: str, found: Sequence[Answered], are_ok: Sequence[bool]) -> None:
    for one, is_ok in zip(found, are_ok, strict=True):
        service.metrics.answered(task, is_ok, one.latency_s)


def _file(cells: AnnData) -> bytes:
    with tempfile.TemporaryDirectory(prefix="cellscribe-cells-") as folder:
        path = Path(folder) / "cells.h5ad"
        write_new(cells, path)
        return path.read_bytes()
