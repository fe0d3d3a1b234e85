"""The body of a conversation: OpenAI's fields, and a cell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.schemas import GENES, Body
from cellscribe.engine.types import MAX_TEMPERATURE

_PLAIN = {str, int, float, bool, type(None)}
_HARMLESS = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls",
}  # fmt: skip
_MEANS_NOTHING: dict[str, tuple[Any, ...]] = {  # values that ask for nothing, of fields that would change the answer
    "n": (1,), "stop": ("", []), "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],),
    "function_call": ("none", "auto"), "response_format": ({"type": "text"},), "logprobs": (False,),
    "top_logprobs": (0,), "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},),
    "modalities": (["text"],), "verbosity": ("medium",),
}  # fmt: skip


class ChatMessage(BaseModel):
    """A message: text, or parts of which one may be a cell."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]] | None = None


class ChatBody(Body):
    """What ``POST /v1/chat/completions`` takes.

    Of OpenAI's other fields those that change no answer (``user``, ``metadata``, ``store``) may stand here; those that
    would (``stop``, ``tools``, ``response_format``, ``logprobs``) only with values that ask for nothing.
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "messages": [
                        {"role": "user", "content": [
                            {"type": "text", "text": "Which cell type is this?"},
                            {"type": "cell", "cell": {"id": "c1", "genes": GENES}},
                        ]},
                    ],
                }
            ]
        },
    )  # fmt: skip

    model: str | None = Field(None, description="The bundle's name; any other is refused.")
    messages: list[ChatMessage] = Field(min_length=1, max_length=200)
    cell: dict[str, Any] | None = Field(None, description="The cell, where no message has one.")
    stream: bool = False
    stream_options: dict[str, Any] | None = Field(None, description='{"include_usage": true} for a last chunk of it.')
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=MAX_TEMPERATURE, description="0 without.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus size where something is drawn; 0.9 without.")
    seed: int | None = Field(None, ge=0, lt=2**63)
    n: int | None = Field(1, description="1: one answer at a time.")

    def num_names(self) -> int:
        """Return how many names the objects of its JSON text have together, where none stands twice in one."""
        return _names_in(self)

    def check(self) -> None:
        """Raise RequestError 400 for what would change the answer and is not supported."""
        for name, value in {"n": self.n, **(self.model_extra or {})}.items():
            if value is not None and name not in _HARMLESS and value not in _MEANS_NOTHING.get(name, ()):
                what = f"n is {self.n}; ask for one answer at a time." if name == "n" else _refusal(name)
                raise RequestError(400, what, name[:200])
        if self.stream_options and not self.stream:
            raise RequestError(400, "stream_options belong to a stream; leave them out.", "stream_options")


def _refusal(name: str) -> str:
    return f"the field {name[:100]!r} is not supported here, and an answer would not heed it; leave it out."


def _names_in(value: Any) -> int:
    if isinstance(value, ChatBody | ChatMessage):
        return sum(1 + _names_in(inner) for name, inner in value if name in value.model_fields_set)
    if isinstance(value, dict):
        return len(value) + _names_among(value.values())
    return _names_among(value) if isinstance(value, list) else 0


def _names_among(values: Iterable[Any]) -> int:
    """Add up names; a thousand genes with their numbers are looked at by their types alone."""
    return 0 if set(map(type, values)) <= _PLAIN else sum(map(_names_in, values))
