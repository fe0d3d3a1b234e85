"""What the addresses have in common: a body, or a file with its options in the query, and how tokens are drawn."""

from __future__ import annotations

from typing import TypeVar

from starlette.requests import Request

from cellscribe.engine.errors import UsageError
from cellscribe.engine.service.bodies import HDF5, content_type, from_query, json_body
from cellscribe.engine.service.chat_schemas import ChatBody
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.schemas import Envelope, FileOptions
from cellscribe.engine.service.service import Service
from cellscribe.engine.types import Sampling

B = TypeVar("B", bound=Envelope | ChatBody)
F = TypeVar("F", bound=FileOptions)
_DRAWN_TOP_P = 0.9


async def asked(request: Request, task: str, model: type[B]) -> B:
    """Return the JSON body of a request for a task of the bundle.

    Raises
    ------
    RequestError
        404 where the bundle lacks the task or has another name, 400 for options in the query; as
        :func:`cellscribe.engine.service.bodies.json_body` for the rest.
    """
    service: Service = request.app.state.service
    service.check_task(task)
    found = await json_body(request, model, service.limits.body_bytes, service.limits.idle_s)
    stray = next(iter(request.query_params), None)
    if stray is not None:
        raise RequestError(
            400, f"the option {stray[:100]!r} stands in the query, which is for files alone; put it into the body.",
            "".join(c for c in stray if c.isprintable())[:200],
        )  # fmt: skip
    service.check_model(found.model)
    return found


async def asked_with_file(request: Request, task: str, model: type[B], file: type[F]) -> B | F:
    """Return the JSON body, or the options of the query where a file is the body, which stays unread."""
    if content_type(request) not in HDF5:
        return await asked(request, task, model)
    service: Service = request.app.state.service
    service.check_task(task)
    found = from_query(file, request.query_params)
    service.check_model(found.model)
    service.deadline(found.deadline_s)  # which holds while the file is read, too
    return found


def sampling_of(temperature: float, top_p: float | None, seed: int) -> Sampling:
    """Return how tokens are chosen; RequestError for values out of range, or a nucleus where nothing is drawn."""
    nucleus = top_p if top_p is not None else 1.0 if temperature == 0 else _DRAWN_TOP_P
    try:
        return Sampling(nucleus, temperature, seed)
    except UsageError as error:
        text = str(error)
        raise RequestError(422, text, text.split(" ", 1)[0]) from error
