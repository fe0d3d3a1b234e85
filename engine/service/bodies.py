"""Reading what a client sends: no more than is allowed, no slower than is bearable, and only what is meant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request

from cellscribe.engine.service.disk import disk_may_be_full
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.repeats import repeated_name
from cellscribe.engine.service.schemas import Body, FileOptions
from cellscribe.engine.service.visits import here

M = TypeVar("M", bound=Body)
F = TypeVar("F", bound=FileOptions)
JSON, HDF5 = "application/json", ("application/x-hdf5", "application/octet-stream")
_SLOWEST = 4_096  # bytes a second, on the whole of a body


def content_type(request: Request) -> str:
    """Return what the body is said to be, without parameters."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def json_body(request: Request, model: type[M], most: int, idle_s: float) -> M:
    """Read a JSON body.

    Raises
    ------
    RequestError
        413 for too many bytes, 415 for another type, 400 for what is no JSON or says something twice, 422 for what is
        not meant, 408 for a client that falls silent, or lets its body drip, 504 once the deadline has passed.
    """
    kind = content_type(request)
    if kind != JSON and not kind.endswith("+json"):
        raise RequestError(415, f"the body is {kind or 'of no type'}; send JSON, and say so: Content-Type: {JSON}.")
    parts = [part async for part in _parts(request, most, idle_s)]
    return parsed(model, b"".join(parts))


async def saved_body(
    request: Request,
    path: Path,
    most: int,
    idle_s: float,
    sending_s: float | None = None,
    on_part: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the body into a file; as :func:`json_body` where it is too large or too slow, 507 on a full disk.

    With `sending_s` it may take so long to come, whatever the deadline is, and 408 says that it took longer. `on_part`
    hears of bytes before they are written, in another thread, and may refuse them.
    """
    with disk_may_be_full(), path.open("wb") as file:

        def write(part: bytes) -> None:
            on_part(len(part))
            file.write(part)

        async for part in _parts(request, most, idle_s, sending_s):
            await asyncio.to_thread(write, part)


def parsed(model: type[M], raw: bytes) -> M:
    """Return a JSON text as a checked body."""
    try:
        found = model.model_validate_json(raw)
    except ValidationError as error:
        raise _problem(error) from None
    twice = repeated_name(raw, found.num_names())
    if twice is not None:
        raise RequestError(
            400, f"the body names {twice[:100]!r} twice in one object, and only one of them could count; name it once.",
            _printed(twice),
        )  # fmt: skip
    return found


def from_query(model: type[F], query: QueryParams) -> F:
    """Return a query string as checked options; RequestError 400 for what stands twice, 422 for what is wrong."""
    given: dict[str, str | list[str]] = {}
    for name in query:
        values = query.getlist(name)
        if len(values) > 1 and name not in model.lists:
            raise RequestError(
                400, f"the option {name[:100]!r} stands {len(values)} times; say it once.", _printed(name)
            )
        given[name] = values if name in model.lists else values[0]
    try:
        return model.model_validate(given, strict=False)
    except ValidationError as error:
        raise _problem(error) from None


def said(error: ValidationError) -> tuple[str, str | None]:
    """Return the first thing wrong with a body in words, and where it is."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = _path(first["loc"])
    words = first["msg"].removeprefix("Value error, ")
    return words[:1].lower() + words[1:300], where or None


def _problem(error: ValidationError) -> RequestError:
    first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
    words, where = said(error)
    if first["type"] == "json_invalid":
        return RequestError(
            400, f"the body is no JSON ({words.removeprefix('invalid JSON: ')}); mend it and send it again."
        )
    more = error.error_count() - 1
    tail = f" (and {more} more)" if more else ""
    return RequestError(422, f"{where or 'the body'} is not as it should be: {words}{tail}.", where)


def _path(parts: tuple[int | str, ...]) -> str:
    told = ""
    for part in parts:
        text = str(part)
        if text in ("function-after", "constrained-str", "[key]"):
            continue
        told += f"[{part}]" if isinstance(part, int) else f".{text}" if told else text
    return _printed(told)


def _printed(name: str) -> str:
    return "".join(c for c in name if c.isprintable())[:200]


async def _parts(request: Request, most: int, idle_s: float, sending_s: float | None = None) -> AsyncIterator[bytes]:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_large(most)
    total, stream, began, visit = 0, request.stream().__aiter__(), time.monotonic(), here()
    end = visit.deadline if sending_s is None else visit.arrived + sending_s
    while True:
        if (left := end - time.monotonic()) <= 0:
            raise _late(sending_s)
        try:
            part = await asyncio.wait_for(anext(stream), min(idle_s, left))
        except StopAsyncIteration:
            return
        except TimeoutError:
            if left < idle_s:
                raise _late(sending_s) from None
            raise RequestError(408, f"nothing came for {idle_s:g} s; send the whole body.") from None
        except ClientDisconnect:
            raise RequestError(400, "the connection was closed before the body was complete; send it again.") from None
        total += len(part)
        if total > most:
            raise _too_large(most)
        if time.monotonic() - began > idle_s + total / _SLOWEST:
            raise RequestError(408, f"the body comes more slowly than {_SLOWEST:,} bytes a second; send it faster.")
        yield part


def _late(sending_s: float | None) -> RequestError:
    if sending_s is None:
        return RequestError(504, "the deadline passed while the body was being sent; allow more time, or send less.")
    return RequestError(408, f"the file was not here after {sending_s:g} s; send it faster, or a smaller one.")


def _too_large(most: int) -> RequestError:
    return RequestError(413, f"the body is larger than the {most:,} bytes that are taken; send less at a time.")
