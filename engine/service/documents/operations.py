"""What each address takes and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from cellscribe.engine.service.chat_schemas import ChatBody
from cellscribe.engine.service.documents.answers import (
    AnnotateAnswer,
    CellEvent,
    ChatAnswer,
    ChatChunk,
    DescribeAnswer,
    DoneEvent,
    EmbedAnswer,
    GenerateAnswer,
    ResultEvent,
    StartEvent,
    TokenEvent,
)
from cellscribe.engine.service.documents.meta import CellListing, ErrorAnswer, Health, ModelList, ModelName
from cellscribe.engine.service.schemas import (
    AnnotateBody,
    AnnotateFile,
    DescribeBody,
    DescribeFile,
    EmbedBody,
    FileOptions,
    GenerateBody,
)

_ASKED = (400, 404, 408, 413, 415, 422, 429, 500, 503, 504)
_SENT = (*_ASKED, 507)  # with a file as the body
_UPLOADED = (400, 408, 413, 415, 422, 429, 500, 503, 504, 507)
_DESCRIBED: dict[str, type[BaseModel]] = {
    "start": StartEvent, "cell": CellEvent, "token": TokenEvent, "result": ResultEvent, "error": ErrorAnswer,
    "done": DoneEvent,
}  # fmt: skip
_EVENTS = (
    "With `stream`: server-sent events, each `event: KIND`, `data: JSON` and an empty line. `start` comes first; "
    "`cell` (with `grid`) once a cell has its slot; `token` for every token; `result` for every finished cell; `done` "
    "at the end, or `error`, which ends the stream, too. Lines that begin with `:` are heartbeats. `x-events` has the "
    "schema of each kind."
)
_CHUNKS = (
    "With `stream`: server-sent events without a name, each a chunk, and `data: [DONE]` at the end; an error, in the "
    "shape of all errors, ends the stream, too. Lines that begin with `:` are heartbeats."
)


@dataclass(frozen=True)
class Operation:
    """One method of one address.

    Parameters
    ----------
    answer
        The JSON it answers with `status`; None for something else.
    body, file
        The JSON it takes, and the options of its query where a file is the body instead.
    takes_file
        Whether a file is a body.
    errors
        The other statuses.
    events, told
        What it streams by kind of event, and that in words.
    other
        Media types that it answers besides.
    """

    method: str
    path: str
    answer: type[BaseModel] | None
    body: type[BaseModel] | None = None
    file: type[FileOptions] | None = None
    takes_file: bool = False
    status: int = 200
    errors: tuple[int, ...] = ()
    events: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    told: str = ""
    other: tuple[str, ...] = ()

    @property
    def needs_key(self) -> bool:
        """Whether a key is wanted where there are any."""
        return self.path.startswith(("/v1/", "/metrics"))


OPERATIONS = (
    Operation(
        "post", "/v1/describe", DescribeAnswer, DescribeBody, DescribeFile, True, 200, _SENT, _DESCRIBED, _EVENTS
    ),
    Operation("post", "/v1/embed", EmbedAnswer, EmbedBody, FileOptions, True, errors=_SENT),
    Operation("post", "/v1/annotate", AnnotateAnswer, AnnotateBody, AnnotateFile, True, errors=_SENT),
    Operation("post", "/v1/generate", GenerateAnswer, GenerateBody, errors=_ASKED, other=("application/x-hdf5",)),
    Operation(
        "post", "/v1/chat/completions", ChatAnswer, ChatBody, errors=_ASKED, events={"chunk": ChatChunk}, told=_CHUNKS
    ),
    Operation("get", "/v1/models", ModelList),
    Operation("get", "/v1/models/{name}", ModelName, errors=(404,)),
    Operation("get", "/v1/cells", CellListing, errors=(404, 422, 500)),
    Operation("post", "/v1/uploads", CellListing, takes_file=True, status=201, errors=_UPLOADED),
    Operation("delete", "/v1/uploads/{upload_id}", None, status=204, errors=(404,)),
    Operation("get", "/health/live", Health, errors=(503,)),
    Operation("get", "/health/ready", Health, errors=(503,)),
    Operation("get", "/metrics", None, other=("text/plain",)),
)
