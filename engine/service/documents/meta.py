"""The answers about the service, its model and its files; and errors."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class GeneCounts(BaseModel):
    """What became of the genes."""

    known: int
    unknown: int
    sentence: str
    examples: list[str] = Field(default_factory=list, description="Some unknown names of cells given whole.")
    values: dict[Literal["counts", "lognorm"], int] | None = Field(
        None, description="How many of the cells given whole were taken to hold counts, and how many logarithms."
    )


class Limits(BaseModel):
    """What one request may ask."""

    cells: int
    genes: int
    labels: int
    max_new_tokens: int
    min_new_tokens: int
    body_bytes: int
    upload_bytes: int
    deadline_s: float


class ModelName(BaseModel):
    """A model, as OpenAI's clients read it."""

    id: str
    object: Literal["model"]
    created: int = Field(description="Seconds since 1970.")
    owned_by: str


class ModelInfo(ModelName):
    """The bundle that is loaded."""

    family: str
    tasks: list[str]
    device: str
    precision: str
    slots: int = Field(description="Texts in progress at a time.")
    needs_key: bool
    limits: Limits


class ModelList(BaseModel):
    """All models: one."""

    object: Literal["list"]
    data: list[ModelInfo]


class CellMap(BaseModel):
    """Where the cells stand in a plane."""

    kind: str = Field(description='As "UMAP", or "PCA of vectors" where the file has no map of its own.')
    x: list[float]
    y: list[float]


class Groups(BaseModel):
    """A column of the cells' annotations."""

    column: str
    names: list[str]
    of: list[int] = Field(description="The place in names of each cell's own.")


class CellListing(BaseModel):
    """A file of cells that can be picked from."""

    source: str = Field(description='What requests call it: "demo", or the id of an upload.')
    name: str
    file: str | None = Field(description="Its path, for clients on the same machine.")
    n_cells: int
    ids: list[str] = Field(description="Names of its cells, 20,000 at most.")
    is_truncated: bool
    map: CellMap | None
    groups: Groups | None
    columns: list[str]
    values: str = Field(description="Which values are read.")
    genes: GeneCounts
    expires_s: float | None = Field(description="How long an upload is kept after its last use.")


class Health(BaseModel):
    """How the service is."""

    status: Literal["live", "ready", "loading", "shutting down", "failed"]


class Problem(BaseModel):
    """What is wrong."""

    message: str = Field(description="One sentence: what is wrong, where, how to mend it.")
    type: Literal[
        "invalid_request_error", "authentication_error", "rate_limit_error", "not_found_error", "timeout_error",
        "unavailable_error", "server_error",
    ]  # fmt: skip
    param: str | None = Field(description='The part of the body it is about, as "cells[0].genes".')
    code: int = Field(description="The HTTP status.")


class ErrorAnswer(BaseModel):
    """Every error; as the event ``error`` it ends a stream."""

    error: Problem
