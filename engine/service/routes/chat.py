"""``/v1/chat/completions``: a cell in the words of OpenAI's clients."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cellscribe.engine.service import answers
from cellscribe.engine.service.asking import Asking, Wanted
from cellscribe.engine.service.bodies import json_body, said
from cellscribe.engine.service.describing import DescribeService, FedCells
from cellscribe.engine.service.orders import Done, Lost, Token
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.routes.describe import sampling_of
from cellscribe.engine.service.schemas import Cells, ChatBody
from cellscribe.engine.service.streaming import EventStream, unless_gone
from cellscribe.engine.types import MAX_NEW_TOKENS

router = APIRouter()
_USUAL_TOKENS = 96
_NOTICE = "this model answers a fixed question about the cell; what the messages say is not read"


@router.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    """Describe the cell of a conversation.

    The cell is a part of a message, ``{"type": "cell", "cell": {"genes": {...}}}`` or ``{"type": "cell", "source":
    "demo", "cell_id": "..."}``, or the field ``cell`` of the body; the last one counts.
    """
    service: DescribeService = request.app.state.service
    service.check_task("chat")
    body = await json_body(request, ChatBody, service.limits.body_bytes, service.limits.idle_s)
    service.check_model(body.model)
    if body.n != 1:
        raise RequestError(422, f"n is {body.n}; ask for one answer at a time.", "n")
    most = body.max_completion_tokens or body.max_tokens or _USUAL_TOKENS
    seed = service.seed(body.seed)
    fed = await service.fed(attached(body), seed)
    wanted = Wanted(
        sampling_of(body.temperature or 0.0, body.top_p if body.temperature else None, seed),
        min(most, MAX_NEW_TOKENS),
        10,
        service.deadline(None),
        request.state.client,
        wants_tokens=body.stream,
    )
    if fed.cells[0].failure:
        raise RequestError(422, f"the cell cannot be described: {fed.cells[0].failure}.", "cell")
    asking = Asking(service.desk, service.queue, fed.cells, wanted)
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": service.bundle.name}
    if body.stream:
        has_usage = bool((body.stream_options or {}).get("include_usage"))
        return EventStream(_chunks(service, asking, fed, head, has_usage), asking.leave)
    (done,) = await unless_gone(request, asking.results(), asking.leave)
    _check(done)
    message = {"role": "assistant", "content": done.description.text}
    choice = {"index": 0, "message": message, "finish_reason": done.description.finish_reason, "logprobs": None}
    told = {
        "object": "chat.completion",
        "choices": [choice],
        "usage": _usage(service, done),
        "cellscribe": _more(done, fed),
    }
    return JSONResponse(head | told)


def attached(body: ChatBody) -> Cells:
    """Return the cell of a conversation.

    Raises
    ------
    RequestError
        422 where there is none, or it is not as it should be.
    """
    found: dict[str, Any] | None = None if body.cell is None else {"type": "cell", "cell": body.cell}
    for message in body.messages:
        for part in message.content if isinstance(message.content, list) else []:
            if part.get("type") == "cell":
                found = part
    if found is None:
        raise RequestError(
            422, 'no message has a cell; attach one as a part: {"type": "cell", "cell": {"genes": {"CD3D": 4}}}.',
            "messages",
        )  # fmt: skip
    inner = found.get("cell")
    place = inner if isinstance(inner, dict) and "source" in inner else found
    try:
        if "source" in place:
            return Cells.model_validate({"source": place.get("source"), "cell_ids": [place.get("cell_id")]})
        if isinstance(inner, dict) and "gene_names" in inner:
            names, cell = inner["gene_names"], {key: value for key, value in inner.items() if key != "gene_names"}
            return Cells.model_validate({"cells": [cell], "gene_names": names})
        return Cells.model_validate({"cells": [inner]})
    except ValidationError as error:
        words, where = said(error)
        raise RequestError(422, f"the cell of the messages is not as it should be: {words}.", where) from None


async def _chunks(
    service: DescribeService, asking: Asking, fed: FedCells, head: dict[str, Any], has_usage: bool
) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return answers.data({**head, "object": "chat.completion.chunk", "choices": [choice], **more})

    yield chunk({"role": "assistant", "content": ""})
    async for one in asking.happenings():
        if one is None:
            yield b": waiting\n\n"
        elif isinstance(one, Token):
            if one.piece.text:
                yield chunk({"content": one.piece.text})
        elif isinstance(one, Lost | Done):
            problem = RequestError(one.status, one.message) if isinstance(one, Lost) else _lost(one)
            if problem is not None:
                service.metrics.failed(problem)
                yield answers.data(problem.body())
                return
            assert isinstance(one, Done)
            yield chunk({}, one.description.finish_reason, cellscribe=_more(one, fed))
            if has_usage:
                usage = _usage(service, one)
                yield answers.data({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _more(done: Done, fed: FedCells) -> dict[str, Any]:
    """Return what OpenAI's fields have no room for."""
    return {"notice": _NOTICE, "genes": fed.genes, "result": answers.record(done)}


def _usage(service: DescribeService, done: Done) -> dict[str, int]:
    prompt = len(service.bundle.manifest.prompt.token_ids) if service.bundle.manifest.prompt else 0
    written = done.description.num_tokens
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _lost(done: Done) -> RequestError | None:
    if done.description.is_ok:
        return None
    return RequestError(
        422, f"the cell cannot be described: {done.description.status.removeprefix('failed: ')}.", "cell"
    )


def _check(done: Done) -> None:
    if (problem := _lost(done)) is not None:
        raise problem
