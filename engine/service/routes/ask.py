"""``/v1/chat/completions`` of bundles that are asked about a cell in a user's own words."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cellscribe.engine.service import call_answers
from cellscribe.engine.service.calling import CallService
from cellscribe.engine.service.calls import Caller
from cellscribe.engine.service.chat_schemas import ChatMessage
from cellscribe.engine.service.families.base import Question, ReadyCells
from cellscribe.engine.service.orders import Answered
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.routes.conversation import Reply, attached, conversation, drawing, most_tokens

router = APIRouter()
_USUAL_TOKENS = 64
_NOTICE = "only the text of the last user message is read, and the last cell"


@router.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    """Answer the last user message, which asks about the cell of the conversation.

    The cell is a part of a message, ``{"type": "cell", "cell": {"genes": {...}}}`` or ``{"type": "cell", "source":
    "demo", "cell_id": "..."}``, or the field ``cell`` of the body; ``{cell}`` in the text says where it belongs. With
    ``stream`` a bundle of the family instructcell, which writes its texts in batches, sends the text as one chunk.
    """
    service: CallService = request.app.state.service
    talk = await conversation(request, "asked about")
    sampling = drawing(talk.body, service.seed(talk.body.seed))
    wish = Question(question(talk.body.messages), sampling, most_tokens(talk.body, _USUAL_TOKENS))
    ready = await service.read(attached(talk.body), wish)
    if ready.items[0].failure:
        raise RequestError(422, f"the cell cannot be asked about: {ready.items[0].failure}.", "cell")
    caller = Caller("chat", request.state.client, service.deadline(None), wants_tokens=talk.body.stream)
    call = service.call(ready.items, ready.work, caller)
    return await talk.respond(request, call, lambda one: _reply(service, ready, one))


def question(messages: list[ChatMessage]) -> str:
    """Return the text of the last user message; RequestError 422 where there is none."""
    mine = next((one for one in reversed(messages) if one.role == "user"), None)
    content = "" if mine is None or mine.content is None else mine.content
    parts = [content] if isinstance(content, str) else [one.get("text") for one in content if one.get("type") == "text"]
    text = "\n".join(one for one in parts if isinstance(one, str)).strip()
    if not text:
        raise RequestError(422, "the last user message has no text; ask something about the cell.", "messages")
    return text


def _reply(service: CallService, ready: ReadyCells, one: Answered) -> Reply:
    told = one.outcome
    service.metrics.answered("chat", told.status == "ok", one.latency_s)
    more = {"notice": _NOTICE, "genes": ready.genes, "result": call_answers.answer(one)}
    return Reply(told.text, told.status, told.finish_reason, ready.items[0].prompt_tokens, len(told.token_ids), more)
