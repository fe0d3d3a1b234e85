"""``/v1/describe`` and ``/v1/embed``."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cellscribe.engine.errors import BackendError, UsageError
from cellscribe.engine.service import answers
from cellscribe.engine.service.asking import Asking, Wanted
from cellscribe.engine.service.bodies import HDF5, content_type, from_query, json_body
from cellscribe.engine.service.describing import DescribeService, FedCells
from cellscribe.engine.service.orders import Begun, Done, Lost, Token
from cellscribe.engine.service.problems import RequestError, problem_of
from cellscribe.engine.service.schemas import DescribeBody, DescribeFile, DescribeOptions, EmbedBody
from cellscribe.engine.service.streaming import EventStream, unless_gone
from cellscribe.engine.service.uploading import of_upload
from cellscribe.engine.types import Sampling

router = APIRouter()
_DRAWN_TOP_P = 0.9


def sampling_of(temperature: float, top_p: float | None, seed: int) -> Sampling:
    """Return how tokens are chosen; RequestError for values out of range, or a nucleus where nothing is drawn."""
    nucleus = top_p if top_p is not None else 1.0 if temperature == 0 else _DRAWN_TOP_P
    try:
        return Sampling(nucleus, temperature, seed)
    except UsageError as error:
        text = str(error)
        raise RequestError(422, text, text.split(" ", 1)[0]) from error


@router.post("/v1/describe")
async def describe(request: Request) -> Response:
    """Describe cells in words, whole or token by token."""
    service: DescribeService = request.app.state.service
    service.check_task("describe")
    options: DescribeOptions
    if content_type(request) in HDF5:
        options = from_query(DescribeFile, request.query_params)
        service.check_model(options.model)
        service.deadline(options.deadline_s)
        seed = service.seed(options.seed)
        fed = await of_upload(service, request, options.values, seed)
        deadline_s = options.deadline_s
    else:
        body = await json_body(request, DescribeBody, service.limits.body_bytes, service.limits.idle_s)
        service.check_model(body.model)
        options, deadline_s = body, body.deadline_s
        seed = service.seed(body.seed)
        fed = await service.fed(body, seed)
    wanted = Wanted(
        sampling_of(options.temperature, options.top_p, seed),
        options.max_new_tokens,
        options.top_genes,
        service.deadline(deadline_s),
        request.state.client,
        wants_tokens=options.stream,
        wants_weights=options.stream and options.grid,
    )
    asking = Asking(service.desk, service.queue, fed.cells, wanted)
    if options.stream:
        return EventStream(_events(service, asking, fed, options), asking.leave)
    results = await unless_gone(request, asking.results(), asking.leave)
    return JSONResponse(_whole(service, fed, results))


@router.post("/v1/embed")
async def embed(request: Request) -> Response:
    """Embed cells: vectors of length 1."""
    service: DescribeService = request.app.state.service
    service.check_task("embed")
    body = await json_body(request, EmbedBody, service.limits.body_bytes, service.limits.idle_s)
    service.check_model(body.model)
    fed, arrived = await service.fed(body), time.monotonic()
    usable = [one for one in fed.cells if not one.failure]
    asked = _vectors(service, usable, request.state.client, body.deadline_s)
    vectors = iter(await unless_gone(request, asked, lambda: None))
    results = []
    for one in fed.cells:
        vector = None if one.failure else next(vectors)
        is_ok = vector is not None and bool(np.isfinite(vector).all())
        status = "ok" if is_ok else f"failed: {one.failure or 'its embedding is not finite'}"
        results.append(
            {
                "cell_id": one.cell_id,
                "status": status,
                "embedding": [round(float(x), 7) for x in vector] if vector is not None and is_ok else None,
            }
        )
        service.metrics.answered("embed", is_ok, time.monotonic() - arrived)
    width = service.bundle.manifest.encoder_shape.d_model
    return JSONResponse(
        {"object": "embedding.list", "model": service.bundle.name, "dimensions": width, "results": results,
         "genes": fed.genes}
    )  # fmt: skip


async def _vectors(service: DescribeService, cells: list[Any], client: str, deadline_s: float | None) -> Any:
    if not cells:
        return ()
    left = service.deadline(deadline_s) - time.monotonic()
    try:
        return await asyncio.wait_for(asyncio.wrap_future(service.desk.embed(cells, client)), left)
    except TimeoutError:
        raise RequestError(504, "the deadline passed before the cells were embedded; allow more time.") from None
    except BackendError as error:
        raise RequestError(503 if service.queue.is_closed else 500, str(error)) from error


def _whole(service: DescribeService, fed: FedCells, results: list[Done]) -> dict[str, Any]:
    return {
        "id": _new_id(),
        "object": "description.list",
        "created": int(time.time()),
        "model": service.bundle.name,
        "results": [answers.record(one) for one in results],
        "genes": fed.genes,
        "usage": _usage(results),
    }


async def _events(
    service: DescribeService, asking: Asking, fed: FedCells, options: DescribeOptions
) -> AsyncIterator[bytes]:
    settings = {
        "sampling": asking.wanted.sampling.label(),
        "max_new_tokens": options.max_new_tokens,
        "seed": asking.wanted.sampling.seed,
    }
    start = {"id": _new_id(), "model": service.bundle.name, "cells": [one.cell_id for one in fed.cells]}
    yield answers.event("start", start | {"waiting_before": asking.before, "genes": fed.genes, "settings": settings})
    results: list[Done] = []
    async for happening in asking.happenings():
        if happening is None:
            yield b": waiting\n\n"
        elif isinstance(happening, Token):
            yield answers.event("token", answers.token(happening))
        elif isinstance(happening, Done):
            results.append(happening)
            yield answers.event("result", {"cell": happening.cell} | answers.record(happening))
        elif isinstance(happening, Begun):
            if options.grid:
                one = fed.cells[happening.cell]
                told = {"cell": happening.cell, "cell_id": one.cell_id, "grid": answers.grid(one)}
                yield answers.event("cell", told)
        else:
            assert isinstance(happening, Lost)
            problem = problem_of(RequestError(happening.status, happening.message))
            service.metrics.failed(problem)
            yield answers.event("error", problem.body())
            return
    yield answers.event("done", {"usage": _usage(results)})


def _usage(results: list[Done]) -> dict[str, int]:
    return {"cells": len(results), "completion_tokens": sum(one.description.num_tokens for one in results)}


def _new_id() -> str:
    return f"desc-{secrets.token_hex(12)}"


__all__ = ["router", "sampling_of"]
