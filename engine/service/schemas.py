"""The bodies of requests: what is in them, within which bounds, with examples for the documentation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cellscribe.engine.types import MAX_NEW_TOKENS, MAX_TEMPERATURE

Value = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
ValueKind = Literal["auto", "counts", "lognorm"]
GENES: dict[str, Any] = {"CD3D": 6, "CD3E": 4, "IL7R": 5, "LTB": 9, "RPS12": 40, "MALAT1": 55}


class Body(BaseModel):
    """What a request says."""

    def num_names(self) -> int:
        """Return how many names the objects of its JSON text have together, where none stands twice in one."""
        return len(self.model_fields_set)


class Strict(Body):
    """A body without fields that nobody reads."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Envelope(Strict):
    """What every request may say."""

    deadline_s: float | None = Field(None, gt=0, description="Longest time in seconds, down from the service's own.")
    model: str | None = Field(None, description="The bundle's name; any other is refused.")


class GivenCell(Strict):
    """A cell: genes with their values, or places in `gene_names` with their values. Genes left out are zeros."""

    id: Name | None = Field(None, description="Its name, which keys all random numbers; cell-0, cell-1, ... without.")
    genes: dict[Name, Value] | None = Field(None, description="Values by gene symbol or Ensembl id.")
    indices: list[Annotated[int, Field(ge=0)]] | None = Field(None, description="Places in gene_names, each once.")
    values: list[Value] | None = Field(None, description="The values at those places.")

    def num_names(self) -> int:
        """Return how many names it has, those of its genes among them."""
        return len(self.model_fields_set) + len(self.genes or ())

    @model_validator(mode="after")
    def _is_one_form(self) -> Self:
        if (self.genes is None) == (self.indices is None and self.values is None):
            raise ValueError("give either genes, or indices and values")
        if self.genes is None and (
            self.indices is None or self.values is None or len(self.indices) != len(self.values)
        ):
            raise ValueError("indices and values belong together and are equally long")
        if self.indices is not None and len(set(self.indices)) < len(self.indices):
            raise ValueError("indices point at a gene twice; name each once, with one value")
        return self


class Cells(Envelope):
    """Which cells: given whole, or picked from a file that the service has."""

    cells: list[GivenCell] | None = Field(None, min_length=1, description="Cells given whole.")
    gene_names: list[Name] | None = Field(None, description="What indices of cells point at.")
    source: Name | None = Field(None, description='"demo", or the id of an upload.')
    cell_ids: list[Name] | None = Field(None, min_length=1, description="Cells of the source.")
    values: ValueKind = Field("auto", description="What the values of given cells are.")

    def num_names(self) -> int:
        """Return how many names it has, those of its cells among them."""
        return super().num_names() + sum(one.num_names() for one in self.cells or ())

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if (self.cells is None) == (self.source is None):
            raise ValueError('give either "cells", or "source" with "cell_ids"')
        if self.source is not None and self.cell_ids is None:
            raise ValueError('"cell_ids" are missing beside "source"')
        if self.cells is not None and (self.cell_ids is not None):
            raise ValueError('"cell_ids" belong to a "source"')
        if self.source is not None and self.values != "auto":
            raise ValueError('"values" belong to cells given whole; say it of a file when it is uploaded')
        if self.gene_names is not None and all(one.indices is None for one in self.cells or ()):
            raise ValueError('"gene_names" belong to cells with indices, and there are none; leave them out')
        return self


class FileOptions(Envelope):
    """What every request may say in its query string where its body is a file, all of whose cells are asked about."""

    lists: ClassVar[frozenset[str]] = frozenset()  # options that may stand several times

    values: ValueKind = Field("auto", description="What the values of the file are.")


class Drawing(Strict):
    """How tokens are chosen."""

    temperature: float = Field(0.0, ge=0, le=MAX_TEMPERATURE, description="0 takes the most probable token.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus size where something is drawn; 0.9 without.")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Key of all random numbers, together with the cell's name; the service's without.",
    )


class DescribeOptions(Drawing):
    """How cells are described; in the query string where the body is a file."""

    stream: bool = Field(False, description="Tell of every token as it is chosen, by server-sent events.")
    max_new_tokens: int = Field(96, ge=1, le=MAX_NEW_TOKENS)
    top_genes: int = Field(10, ge=0, le=200, description="Genes to list per text.")
    grid: bool = Field(False, description="With stream: tell each token's attention to all genes, too.")

    @model_validator(mode="after")
    def _has_tokens_for_a_grid(self) -> Self:
        if self.grid and not self.stream:
            raise ValueError('"grid" is told token by token; ask for a "stream", too, or leave it out')
        return self


class DescribeBody(Cells, DescribeOptions):
    """What ``POST /v1/describe`` takes."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"cells": [{"id": "c1", "genes": GENES}], "max_new_tokens": 64}]}
    )


class DescribeFile(FileOptions, DescribeOptions):
    """The options that go with a file as the body of ``POST /v1/describe``."""


class EmbedBody(Cells):
    """What ``POST /v1/embed`` takes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"cells": [{"id": "c1", "genes": GENES}]}]})


class AnnotateOptions(Strict):
    """How cells are labelled; in the query string where the body is a file."""

    labels: list[Name] | dict[Name, Name | None] | None = Field(None, description="What may come out; with ids.")
    scores: bool = Field(False, description="Score every label.")
    max_new_tokens: int = Field(32, ge=1, le=MAX_NEW_TOKENS, description="Of a label in the model's own words.")

    def num_names(self) -> int:
        """Return how many names it has, those of its labels among them."""
        return super().num_names() + (len(self.labels) if isinstance(self.labels, dict) else 0)

    @model_validator(mode="after")
    def _bounds_only_own_words(self) -> Self:
        if self.labels is not None and "max_new_tokens" in self.model_fields_set:
            raise ValueError('"max_new_tokens" bounds labels in the model\'s own words; leave it out beside "labels"')
        return self


class AnnotateBody(Cells, AnnotateOptions):
    """What ``POST /v1/annotate`` takes."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"cells": [{"id": "c1", "genes": GENES}], "labels": ["B cell", "T cell"]}]}
    )


class AnnotateFile(FileOptions, AnnotateOptions):
    """The options that go with a file as the body of ``POST /v1/annotate``; ``labels`` once for each label."""

    lists: ClassVar[frozenset[str]] = frozenset({"labels"})


class GenerateBody(Drawing, Envelope):
    """What ``POST /v1/generate`` takes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"cell_type": "B cell", "n": 2, "seed": 1}]})

    cell_type: Name | None = None
    tissue: Name | None = None
    n: int = Field(1, ge=1)
    temperature: float = Field(0.7, ge=0, le=MAX_TEMPERATURE)
    max_new_tokens: int | None = Field(None, ge=1)
