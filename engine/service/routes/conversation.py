"""What all conversations have in common: OpenAI's shape, whole or chunk by chunk, and the cell that is attached."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from cellscribe.engine.service import answers
from cellscribe.engine.service.awaiting import Awaited, problem_of_lost
from cellscribe.engine.service.bodies import said
from cellscribe.engine.service.chat_schemas import ChatBody
from cellscribe.engine.service.json_text import Json
from cellscribe.engine.service.metrics import Metrics
from cellscribe.engine.service.orders import Answered, Done, Lost, Token
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.routes.asked import asked, sampling_of
from cellscribe.engine.service.schemas import Cells
from cellscribe.engine.service.service import Service
from cellscribe.engine.service.streaming import EventStream, unless_gone
from cellscribe.engine.types import MAX_NEW_TOKENS, Sampling

D = TypeVar("D", Done, Answered)


@dataclass(frozen=True)
class Reply:
    """What became of the cell of a conversation: a text, or the status that says why there is none.

    `more` is what OpenAI's fields have no room for.
    """

    text: str
    status: str
    finish_reason: str
    prompt_tokens: int
    tokens: int
    more: dict[str, Any]

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written."""
        total = self.prompt_tokens + self.tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens, "total_tokens": total}


@dataclass(frozen=True)
class Chat:
    """A conversation whose cell is asked about: `fails` says of which task it is, where none comes of it."""

    body: ChatBody
    model: str
    fails: str
    metrics: Metrics

    def check(self, reply: Reply) -> None:
        """Raise RequestError 422 where nothing came of the cell."""
        if reply.status != "ok":
            raise RequestError(
                422, f"the cell cannot be {self.fails}: {reply.status.removeprefix('failed: ')}.", "cell"
            )

    async def respond(self, request: Request, waiting: Awaited[D], reply_of: Callable[[D], Reply]) -> Response:
        """Answer, as a whole or chunk by chunk."""
        if self.body.stream:
            return EventStream(self._chunks(waiting, reply_of), waiting.leave)
        (one,) = await unless_gone(request, waiting.results(), waiting.leave)
        reply = reply_of(one)
        self.check(reply)
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}
        told = {"choices": [choice], "usage": reply.usage, "cellscribe": reply.more}
        return Json(answers.head("chatcmpl", "chat.completion", self.model) | told)

    async def _chunks(self, waiting: Awaited[D], reply_of: Callable[[D], Reply]) -> AsyncIterator[bytes]:
        head = answers.head("chatcmpl", "chat.completion.chunk", self.model)

        def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
            return answers.data({**head, "choices": [choice], **more})

        yield chunk({"role": "assistant", "content": ""})
        has_told = False
        try:
            async for one in waiting.happenings():
                if one is None:
                    yield b": waiting\n\n"
                elif isinstance(one, Token):
                    if one.piece.text:
                        has_told = True
                        yield chunk({"content": one.piece.text})
                elif isinstance(one, Lost):
                    raise problem_of_lost(one)
                elif isinstance(one, Done | Answered):
                    reply = reply_of(one)  # type: ignore[arg-type]  # of the kind that is waited for
                    self.check(reply)
                    if reply.text and not has_told:  # of a family that tells of no tokens
                        yield chunk({"content": reply.text})
                    yield chunk({}, reply.finish_reason, cellscribe=reply.more)
                    if (self.body.stream_options or {}).get("include_usage"):
                        yield answers.data({**head, "choices": [], "usage": reply.usage})
        except RequestError as problem:
            self.metrics.failed(problem)
            yield answers.data(problem.body())
            return
        yield b"data: [DONE]\n\n"


async def conversation(request: Request, fails: str) -> Chat:
    """Read a conversation; RequestError 400 for what would change the answer and is not supported."""
    service: Service = request.app.state.service
    body = await asked(request, "chat", ChatBody)
    body.check()
    return Chat(body, service.bundle.name, fails, service.metrics)


def drawing(body: ChatBody, seed: int) -> Sampling:
    """Return how tokens are chosen."""
    return sampling_of(body.temperature or 0.0, body.top_p, seed)


def most_tokens(body: ChatBody, usual: int) -> int:
    """Return how many tokens a text may have: what is asked for where there is so much room, else all there is."""
    return min(body.max_completion_tokens or body.max_tokens or usual, MAX_NEW_TOKENS)


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
    try:
        return Cells.model_validate(_as_cells(found))
    except ValidationError as error:
        words, where = said(error)
        raise RequestError(422, f"the cell of the messages is not as it should be: {words}.", where) from None


def _as_cells(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a message as a body of cells has it."""
    part = {name: value for name, value in part.items() if value is not None}
    inner = part.get("cell")
    is_picked = "source" in part or (isinstance(inner, dict) and "source" in inner)
    place = inner if is_picked and isinstance(inner, dict) else part
    stray = sorted(place.keys() - ({"type", "source", "cell_id"} if is_picked else {"type", "cell"}))
    if stray:
        raise RequestError(
            422, f"the cell of the messages has {stray[0][:100]!r}, which is not read there; leave it out.", "cell"
        )
    if is_picked:
        return {"source": place.get("source"), "cell_ids": [place.get("cell_id")]}
    if isinstance(inner, dict) and "gene_names" in inner:
        cell = {key: value for key, value in inner.items() if key != "gene_names"}
        return {"cells": [cell], "gene_names": inner["gene_names"]}
    return {"cells": [inner]}
