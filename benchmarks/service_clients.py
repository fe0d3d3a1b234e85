"""Clients of a service, as one process: ``service_clients.py PORT BODIES.json CLIENTS SECONDS [stream]``.

Each client keeps one connection and sends its next request once the last is answered, for so many seconds; what is
under way then is waited for, and not counted into the rate. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Seen:
    """What clients saw: seconds of requests and of first tokens, cells and tokens, and what went wrong."""

    until: float
    latency: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    cells: int = 0
    tokens: int = 0
    errors: list[str] = field(default_factory=list)

    def answered(self, began: float, first: float | None, cells: int, tokens: int) -> None:
        """Count an answer."""
        now = time.perf_counter()
        if now <= self.until:
            self.cells, self.tokens = self.cells + cells, self.tokens + tokens
            self.latency.append(now - began)
            if first is not None:
                self.first.append(first - began)


async def client(port: int, bodies: list[bytes], at: int, step: int, seen: Seen, is_stream: bool) -> None:
    """Ask again and again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    while time.perf_counter() < seen.until:
        body, began = bodies[at % len(bodies)], time.perf_counter()
        at += step
        writer.write(request_bytes(body))
        status, length = await _head(reader)
        if status != 200:
            seen.errors.append(f"{status} {(await reader.readexactly(length or 0))[:300]!r}")
        elif is_stream:
            first, tokens = await _events(reader)
            seen.answered(began, first, 1, tokens)
        else:
            told = json.loads(await reader.readexactly(length or 0))
            bad = [one["status"] for one in told["results"] if one["status"] != "ok"]
            seen.errors += bad
            usage = told["usage"]
            seen.answered(began, None, usage["cells"] - len(bad), usage["completion_tokens"])
    writer.close()


def request_bytes(body: bytes) -> bytes:
    """Return a request to describe what a body says."""
    head = "POST /v1/describe HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _head(reader: asyncio.StreamReader) -> tuple[int, int | None]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), int(headers["content-length"]) if "content-length" in headers else None


async def _events(reader: asyncio.StreamReader) -> tuple[float | None, int]:
    """Read a chunked stream of events; return when the first token came, and how many there were."""
    first, tokens = None, 0
    while (size := int(await reader.readline(), 16)) > 0:
        chunk = await reader.readexactly(size + 2)
        found = chunk.count(b"event: token\n")
        if found and first is None:
            first = time.perf_counter()
        tokens += found
    await reader.readline()
    return first, tokens


async def run(port: int, bodies: list[bytes], clients: int, seconds: float, is_stream: bool) -> dict[str, object]:
    """Run the clients and return what they saw."""
    began = time.perf_counter()
    seen = Seen(began + seconds)
    done = await asyncio.gather(
        *(client(port, bodies, i, clients, seen, is_stream) for i in range(clients)), return_exceptions=True
    )
    seen.errors += [f"{type(one).__name__}: {one}" for one in done if isinstance(one, BaseException)]
    return {
        "clients": clients,
        "streamed": is_stream,
        "seconds": seconds,
        "cells": seen.cells,
        "cells_per_second": round(seen.cells / seconds, 1),
        "tokens_per_second": round(seen.tokens / seconds),
        "latency_ms": _quantiles(seen.latency),
        "first_token_ms": _quantiles(seen.first),
        "errors": len(seen.errors),
        "first_errors": seen.errors[:3],
    }


def _quantiles(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    found = np.quantile(seconds, (0.5, 0.95, 0.99)) * 1e3
    return dict(zip(("p50", "p95", "p99"), found.round(2).tolist(), strict=True))


if __name__ == "__main__":
    texts = [text.encode() for text in json.loads(Path(sys.argv[2]).read_text())]
    told = asyncio.run(run(int(sys.argv[1]), texts, int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:] == ["stream"]))
    print(json.dumps(told))
