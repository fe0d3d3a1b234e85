"""``/v1/chat/completions`` of bundles that are asked about a cell in a user's own words."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cellscribe.engine.service import answers, call_answers
from cellscribe.engine.service.bodies import json_body
from cellscribe.engine.service.calling import CallService
from cellscribe.engine.service.calls import Call, Caller
from cellscribe.engine.service.families.base import Question, ReadyCells
from cellscribe.engine.service.orders import Answered, Lost, Token
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.routes.chat import attached
from cellscribe.engine.service.routes.describe import sampling_of
from cellscribe.engine.service.schemas import ChatBody, ChatMessage
from cellscribe.engine.service.streaming import EventStream, unless_gone
from cellscribe.engine.types import MAX_NEW_TOKENS

router = APIRouter()
_USUAL_TOKENS = 64
_NOTICE = "only the text of the last user message is read, and the last cell"


@router.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    """Answer the last user message, which asks about the cell of the conversation.

    The cell is attached as for the other families; ``{cell}`` in the text says where it belongs.
    """
    service: CallService = request.app.state.service
    service.check_task("chat")
    body = await json_body(request, ChatBody, service.limits.body_bytes, service.limits.idle_s)
    service.check_model(body.model)
    if body.n != 1:
        raise RequestError(422, f"n is {body.n}; ask for one answer at a time.", "n")
    sampling = sampling_of(body.temperature or 0.0, body.top_p if body.temperature else None, service.seed(body.seed))
    most = min(body.max_completion_tokens or body.max_tokens or _USUAL_TOKENS, MAX_NEW_TOKENS)
    ready = await service.read(attached(body), Question(question(body.messages), sampling, most))
    if ready.items[0].failure:
        raise RequestError(422, f"the cell cannot be asked about: {ready.items[0].failure}.", "cell")
    caller = Caller("chat", request.state.client, service.deadline(None), wants_tokens=body.stream)
    call = service.call(ready.items, ready.work, caller)
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": service.bundle.name}
    if body.stream:
        has_usage = bool((body.stream_options or {}).get("include_usage"))
        return EventStream(_chunks(service, call, ready, head, has_usage), call.leave)
    (one,) = await unless_gone(request, call.results(), call.leave)
    if (problem := _counted(service, one)) is not None:
        raise problem
    message = {"role": "assistant", "content": one.outcome.text}
    choice = {"index": 0, "message": message, "finish_reason": one.outcome.finish_reason, "logprobs": None}
    told = {
        "object": "chat.completion",
        "choices": [choice],
        "usage": _usage(ready, one),
        "cellscribe": _more(ready, one),
    }
    return JSONResponse(head | told)


def question(messages: list[ChatMessage]) -> str:
    """Return the text of the last user message; RequestError 422 where there is none."""
    mine = next((one for one in reversed(messages) if one.role == "user"), None)
    content = "" if mine is None or mine.content is None else mine.content
    parts = [content] if isinstance(content, str) else [one.get("text") for one in content if one.get("type") == "text"]
    text = "\n".join(one for one in parts if isinstance(one, str)).strip()
    if not text:
        raise RequestError(422, "the last user message has no text; ask something about the cell.", "messages")
    return text


async def _chunks(
    service: CallService, call: Call, ready: ReadyCells, head: dict[str, Any], has_usage: bool
) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return answers.data({**head, "object": "chat.completion.chunk", "choices": [choice], **more})

    yield chunk({"role": "assistant", "content": ""})
    has_told = False
    async for one in call.happenings():
        if one is None:
            yield b": waiting\n\n"
        elif isinstance(one, Token):
            if one.piece.text:
                has_told = True
                yield chunk({"content": one.piece.text})
        elif isinstance(one, Lost | Answered):
            problem = RequestError(one.status, one.message) if isinstance(one, Lost) else _counted(service, one)
            if problem is not None:
                service.metrics.failed(problem)
                yield answers.data(problem.body())
                return
            assert isinstance(one, Answered)
            if not has_told and one.outcome.text:
                yield chunk({"content": one.outcome.text})
            yield chunk({}, one.outcome.finish_reason, cellscribe=_more(ready, one))
            if has_usage:
                usage = _usage(ready, one)
                yield answers.data({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _counted(service: CallService, one: Answered) -> RequestError | None:
    """Count an answer; return what is wrong with one that failed."""
    is_ok = one.outcome.status == "ok"
    service.metrics.answered("chat", is_ok, one.latency_s)
    if is_ok:
        return None
    return RequestError(422, f"the cell cannot be asked about: {one.outcome.status.removeprefix('failed: ')}.", "cell")


def _more(ready: ReadyCells, one: Answered) -> dict[str, Any]:
    """Return what OpenAI's fields have no room for."""
    return {"notice": _NOTICE, "genes": ready.genes, "result": call_answers.answer(one)}


def _usage(ready: ReadyCells, one: Answered) -> dict[str, int]:
    prompt, written = ready.items[0].prompt_tokens, len(one.outcome.token_ids)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
