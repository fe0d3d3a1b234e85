"""``/v1/chat/completions`` of bundles that describe cells: a cell in the words of OpenAI's clients."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cellscribe.engine.service import answers
from cellscribe.engine.service.asking import Asking, Wanted
from cellscribe.engine.service.describing import DescribeService, FedCells
from cellscribe.engine.service.orders import Done
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.routes.conversation import Reply, attached, conversation, drawing, most_tokens

router = APIRouter()
_USUAL_TOKENS = 96
_TOP_GENES = 10
_NOTICE = "this model answers a fixed question about the cell; what the messages say is not read"


@router.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    """Describe the cell of a conversation.

    The cell is a part of a message, ``{"type": "cell", "cell": {"genes": {...}}}`` or ``{"type": "cell", "source":
    "demo", "cell_id": "..."}``, or the field ``cell`` of the body; the last one counts. What the messages say is not
    read: the model answers its one question.
    """
    service: DescribeService = request.app.state.service
    talk = await conversation(request, "described")
    seed = service.seed(talk.body.seed)
    sampling, most = drawing(talk.body, seed), most_tokens(talk.body, _USUAL_TOKENS)
    fed = await service.fed(attached(talk.body), seed)
    if fed.cells[0].failure:
        raise RequestError(422, f"the cell cannot be described: {fed.cells[0].failure}.", "cell")
    deadline, client = service.deadline(None), request.state.client
    wanted = Wanted(sampling, most, _TOP_GENES, deadline, client, wants_tokens=talk.body.stream)
    asking = Asking(service.desk, service.queue, fed.cells, wanted)
    return await talk.respond(request, asking, lambda done: _reply(service, fed, done))


def _reply(service: DescribeService, fed: FedCells, done: Done) -> Reply:
    told, prompt = done.description, service.bundle.manifest.prompt
    more = {"notice": _NOTICE, "genes": fed.genes, "result": answers.record(done, fed.cells[0])}
    prompt_tokens = len(prompt.token_ids) if prompt else 0
    return Reply(told.text, told.status, told.finish_reason, prompt_tokens, told.num_tokens, more)
