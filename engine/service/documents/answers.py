"""The answers about cells, whole and as events."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from cellscribe.engine.service.documents.meta import GeneCounts

Share = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[str, float]
Status = Annotated[str, Field(description='"ok", or "failed: " and why.')]


class TopGene(BaseModel):
    """A gene that a text attended to."""

    gene: str
    weight: Share = Field(description="Its share of the attention that went to genes.")
    is_detected: bool = Field(
        description="Whether the cell has a value above 0 for it: false for a gene that it lacks, which is fed as a 0."
    )


class Record(BaseModel):
    """A text about a cell; numbers that do not exist are null."""

    cell_id: str
    status: Status
    text: str
    finish_reason: Literal["stop", "length"] | None
    tokens: int
    mean_logprob: float | None
    latency_ms: float | None = Field(
        description="From its slot to its last token; what it waited before, `queue_ms`, comes on top."
    )
    queue_ms: float | None = Field(description="From its arrival to its slot.")
    time_to_first_token_ms: float | None = Field(
        description="From its arrival to its first token, so that `queue_ms` is part of it."
    )
    top_genes: list[TopGene]
    named_genes: list[str] = Field(description="Those of the top genes that the text names.")
    grounding: Share | None = Field(description="Their share of the top genes.")


class CellUsage(BaseModel):
    """What was written."""

    cells: int
    completion_tokens: int


class Head(BaseModel):
    """What every whole answer begins with."""

    id: str
    created: int = Field(description="Seconds since 1970.")
    model: str


class DescribeAnswer(Head):
    """Texts about cells."""

    object: Literal["description.list"]
    results: list[Record]
    genes: GeneCounts
    usage: CellUsage


class Settings(BaseModel):
    """How the texts are written."""

    sampling: str
    max_new_tokens: int
    seed: int


class StartEvent(BaseModel):
    """``start``: the first event."""

    id: str
    model: str
    cells: list[str] = Field(description="Names; the other events give a cell as its place here.")
    waiting_before: int = Field(description="Cells that waited already.")
    genes: GeneCounts
    settings: Settings


class CellEvent(BaseModel):
    """``cell``: a cell is begun; only with ``grid``."""

    cell: int
    cell_id: str
    grid: list[str] = Field(description="The genes, in the order of a token's weights.")
    detected: list[int] = Field(description="Places in grid of the genes for which the cell has a value above 0.")


class TokenEvent(BaseModel):
    """``token``: a token was chosen."""

    cell: int
    i: int
    text: str = Field(description="What it adds to the text.")
    token: int
    logprob: float
    genes: list[Pair] = Field(description="The genes it attended to most, with their shares of its attention.")
    running: list[Pair] = Field(description="Those of the text so far.")
    weights: str = Field("", description="With grid: uint8 per gene in base64, relative to the largest, which is 255.")
    most: Share = Field(0.0, description="With grid: the share that the largest is; a gene's is byte / 255 * most.")


class ResultEvent(Record):
    """``result``: a cell is finished, or has failed."""

    cell: int


class DoneEvent(BaseModel):
    """``done``: the last event."""

    usage: CellUsage


class Vector(BaseModel):
    """The vector of a cell."""

    cell_id: str
    status: Status
    embedding: list[float] | None = Field(description="Of length 1; null for a cell that failed.")


class EmbedAnswer(Head):
    """Vectors of cells."""

    object: Literal["embedding.list"]
    dimensions: int
    results: list[Vector]
    genes: GeneCounts


class Label(BaseModel):
    """The label of a cell."""

    cell_id: str
    status: Status
    label: str | None
    score: float | None = Field(description="How likely it is among the labels, or by itself in the model's own words.")
    cell_ontology_term_id: str | None
    scores: dict[str, float | None] = Field(default_factory=dict, description="Of all labels, where asked for.")


class AnnotateAnswer(Head):
    """Labels of cells."""

    object: Literal["annotation.list"]
    results: list[Label]
    genes: GeneCounts


class WrittenCell(BaseModel):
    """A cell that was written."""

    cell_id: str
    genes: dict[str, float] = Field(description="Its values, without zeros.")
    sentence: str | None = Field(description="What the model wrote, where that was a sentence of genes.")


class GenerateAnswer(Head):
    """Cells that were written."""

    object: Literal["cell.list"]
    results: list[WrittenCell]
    values: str = Field(description='What the values are, as "counts".')
    said: str = Field(description="What is to be said about them.")


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class More(BaseModel):
    """What OpenAI's fields have no room for."""

    notice: str
    genes: GeneCounts
    result: Record


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str


class Choice(BaseModel):
    """The one choice."""

    index: Literal[0]
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None


class ChatAnswer(Head):
    """OpenAI's chat completion, and more of it."""

    object: Literal["chat.completion"]
    choices: list[Choice]
    usage: Usage
    cellscribe: More


class ChunkChoice(BaseModel):
    """What a chunk adds to the one choice."""

    index: Literal[0]
    delta: dict[str, Any] = Field(description="The role at first, then content, and nothing at the end.")
    finish_reason: Literal["stop", "length"] | None
    logprobs: None


class ChatChunk(Head):
    """A chunk of a streamed answer; the last but ``[DONE]`` has the usage where it was asked for, and no choice."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]
    usage: Usage | None = None
    cellscribe: More | None = Field(None, description="With the finish reason.")
