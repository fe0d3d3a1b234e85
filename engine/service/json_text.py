"""Answers as JSON text: the standard library's encoder took a sixth of the event loop where tokens are streamed."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
from starlette.responses import Response


def json_text(what: Any) -> bytes:
    """Return JSON in UTF-8; numbers that do not exist are null."""
    try:
        return orjson.dumps(what)
    except TypeError:  # as for integers beyond 64 bits, or halves of surrogate pairs in a name
        return json.dumps(_finite(what), ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()


def _finite(what: Any) -> Any:
    if isinstance(what, dict):
        return {name: _finite(one) for name, one in what.items()}
    if isinstance(what, list | tuple):
        return [_finite(one) for one in what]
    return None if isinstance(what, float) and not math.isfinite(what) else what


class Json(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return its text."""
        return json_text(content)
