"""``/v1/describe`` and ``/v1/embed``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cellscribe.engine.errors import BackendError
from cellscribe.engine.service import answers
from cellscribe.engine.service.asking import Asking, Wanted
from cellscribe.engine.service.awaiting import problem_of_lost
from cellscribe.engine.service.describing import DescribeService, FedCells
from cellscribe.engine.service.json_text import Json
from cellscribe.engine.service.orders import Begun, Done, Lost, Token
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.routes.asked import asked_with_file, sampling_of
from cellscribe.engine.service.schemas import (
    Cells,
    DescribeBody,
    DescribeFile,
    DescribeOptions,
    EmbedBody,
    FileOptions,
)
from cellscribe.engine.service.streaming import EventStream, unless_gone
from cellscribe.engine.service.uploading import of_upload

router = APIRouter()


@router.post("/v1/describe")
async def describe(request: Request) -> Response:
    """Describe cells in words, whole or token by token."""
    service: DescribeService = request.app.state.service
    options = await asked_with_file(request, "describe", DescribeBody, DescribeFile)
    seed = service.seed(options.seed)
    sampling = sampling_of(options.temperature, options.top_p, seed)
    fed = await _fed(request, options, seed)
    wanted = Wanted(
        sampling,
        options.max_new_tokens,
        options.top_genes,
        service.deadline(options.deadline_s),
        request.state.client,
        wants_tokens=options.stream,
        wants_weights=options.grid,
    )
    asking = Asking(service.desk, service.queue, fed.cells, wanted)
    if options.stream:
        return EventStream(_events(service, asking, fed, options), asking.leave)
    results = await unless_gone(request, asking.results(), asking.leave)
    return Json(_whole(service, fed, results))


@router.post("/v1/embed")
async def embed(request: Request) -> Response:
    """Embed cells: vectors of length 1."""
    service: DescribeService = request.app.state.service
    options = await asked_with_file(request, "embed", EmbedBody, FileOptions)
    fed, arrived = await _fed(request, options), time.monotonic()
    usable = [one for one in fed.cells if not one.failure]
    vectors = _vectors(service, usable, request.state.client, options.deadline_s)
    found = iter(await unless_gone(request, vectors, lambda: None))
    results = [answers.vector(one.cell_id, one.failure, None if one.failure else next(found)) for one in fed.cells]
    for one in results:
        service.metrics.answered("embed", one["status"] == "ok", time.monotonic() - arrived)
    told = {"dimensions": service.bundle.manifest.encoder_shape.d_model, "results": results, "genes": fed.genes}
    return Json(answers.head("embedding", "embedding.list", service.bundle.name) | told)


async def _fed(request: Request, options: Cells | FileOptions, seed: int | None = None) -> FedCells:
    service: DescribeService = request.app.state.service
    if isinstance(options, Cells):
        return await service.fed(options, seed)
    return await of_upload(service, request, options.values, lambda file: service.of_file(file, None, seed))


async def _vectors(service: DescribeService, cells: list[Any], client: str, deadline_s: float | None) -> Any:
    if not cells:
        return ()
    left = service.deadline(deadline_s) - time.monotonic()
    try:
        return await asyncio.wait_for(asyncio.wrap_future(service.desk.embed(cells, client)), left)
    except TimeoutError:
        raise RequestError(504, "the deadline passed before the cells were embedded; allow more time.") from None
    except BackendError as error:
        if service.queue.is_closed:
            raise RequestError(503, str(error), retry_after_s=10) from error
        raise RequestError(500, str(error)) from error


def _whole(service: DescribeService, fed: FedCells, results: list[Done]) -> dict[str, Any]:
    records = [answers.record(one, fed.cells[one.cell]) for one in results]
    told = {"results": records, "genes": fed.genes, "usage": _usage(results)}
    return answers.head("desc", "description.list", service.bundle.name) | told


async def _events(
    service: DescribeService, asking: Asking, fed: FedCells, options: DescribeOptions
) -> AsyncIterator[bytes]:
    settings = {
        "sampling": asking.wanted.sampling.label(),
        "max_new_tokens": options.max_new_tokens,
        "seed": asking.wanted.sampling.seed,
    }
    start = {"id": answers.new_id("desc"), "model": service.bundle.name, "cells": [one.cell_id for one in fed.cells]}
    yield answers.event("start", start | {"waiting_before": asking.before, "genes": fed.genes, "settings": settings})
    results: list[Done] = []
    async for happening in asking.happenings():
        if happening is None:
            yield b": waiting\n\n"
        elif isinstance(happening, Token):
            yield answers.event("token", answers.token(happening))
        elif isinstance(happening, Done):
            results.append(happening)
            told = answers.record(happening, fed.cells[happening.cell])
            yield answers.event("result", {"cell": happening.cell} | told)
        elif isinstance(happening, Begun):
            if options.grid:
                one = fed.cells[happening.cell]
                yield answers.event("cell", {"cell": happening.cell, "cell_id": one.cell_id} | answers.grid(one))
        else:
            assert isinstance(happening, Lost)
            problem = problem_of_lost(happening)
            service.metrics.failed(problem)
            yield answers.event("error", problem.body())
            return
    yield answers.event("done", {"usage": _usage(results)})


def _usage(results: list[Done]) -> dict[str, int]:
    return {"cells": len(results), "completion_tokens": sum(one.description.num_tokens for one in results)}
