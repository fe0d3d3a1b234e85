"""A server that speaks the service's HTTP interface with canned answers, for tests of the page alone."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from canned_answers import cells_answer, stream

import cellscribe.engine

PAGE = Path(str(cellscribe.engine.__file__)).parent / "service" / "page"
CSP = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass
class Scene:
    """What the server does, changed by a test before it acts."""

    key: str | None = None
    tasks: tuple[str, ...] = ("describe", "embed")
    delay_s: float = 0.0  # between tokens
    wait_s: float = 0.0  # before a cell has its slot
    cut_after: int | None = None  # tokens, then the connection ends
    event: dict[str, Any] | None = None  # an error event after the first token
    refusals: list[tuple[int, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)  # replaces keys of the results
    begun: dict[str, Any] = field(default_factory=dict)  # added to what is told of a cell that is begun
    each: dict[str, Any] = field(default_factory=dict)  # added to tokens
    pause_s: float = 0.0  # before an upload is answered
    cells: dict[str, Any] = field(default_factory=dict)  # replaces keys of the answer about cells
    uploads: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)  # a client went away mid-stream

    def refuse(self, code: int, kind: str, message: str, param: str | None = None, **headers: str) -> None:
        """Answer the next request that a POST makes with an error."""
        body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.refusals.append((code, body, {name.replace("_", "-"): value for name, value in headers.items()}))

    def asked(self, path: str) -> list[Any]:
        """Return the bodies that were posted to a path."""
        return [body for method, asked, body in self.requests if method == "POST" and asked == path]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    scene: Scene
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def reply(self, code: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Security-Policy": CSP, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def json(self, value: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.reply(code, json.dumps(value).encode(), "application/json", headers)

    def may(self) -> bool:
        if self.scene.key is None or self.headers["Authorization"] == f"Bearer {self.scene.key}":
            return True
        message = "This service wants an API key: send it as `Authorization: Bearer KEY`."
        self.json({"error": {"message": message, "type": "authentication_error", "param": None, "code": 401}}, 401)
        return False

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.scene.requests.append(("GET", self.path, None))
        file = PAGE / ("index.html" if url.path == "/" else url.path.removeprefix("/page/"))
        if not url.path.startswith("/v1/"):
            if file.is_file():
                self.reply(200, file.read_bytes(), TYPES[file.suffix])
            else:
                self.json({"error": {"message": f"There is no {url.path}."}}, 404)
        elif self.may() and url.path == "/v1/models":
            self.json({"object": "list", "data": [self.model()]})
        elif self.may():
            name = self.scene.uploads.get(query["source"], "cells.h5ad")
            self.json({**cells_answer(query["source"], name, query.get("column", "cell_type")), **self.scene.cells})

    def model(self) -> dict[str, Any]:
        limits = {"cells": 256, "genes": 70000, "max_new_tokens": 256, "min_new_tokens": 1, "upload_bytes": 2**20}
        return {
            "id": "demo", "family": "lingocell", "tasks": self.scene.tasks, "device": "CPU, native, 2 threads",
            "precision": "fp32", "limits": limits, "needs_key": self.scene.key is not None,
        }  # fmt: skip

    def do_DELETE(self) -> None:
        self.scene.requests.append(("DELETE", self.path, None))
        self.reply(204, b"", "text/plain")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = urlsplit(self.path)
        is_json = self.headers["Content-Type"] == "application/json"
        self.scene.requests.append(("POST", url.path, json.loads(body) if is_json else body))
        if not self.may():
            return
        if self.scene.refusals:
            code, error, headers = self.scene.refusals.pop(0)
            self.json(error, code, headers)
        elif url.path == "/v1/uploads":
            time.sleep(self.scene.pause_s)
            name = parse_qs(url.query)["name"][0]
            source = f"up-{len(self.scene.uploads) + 1}"
            self.scene.uploads[source] = name
            self.json(cells_answer(source, name, "cell_type", 30), 201)
        elif url.path == "/v1/annotate":
            request = json.loads(body)
            labels = request["labels"] or ["monocyte"]
            rows = [
                {"cell_id": cell_id, "status": "ok", "label": labels[-1], "score": 0.875, "cell_ontology_term_id": None}
                for cell_id in request["cell_ids"]
            ]
            self.json({"model": "demo-c2s", "results": rows})
        else:
            self.stream(json.loads(body))

    def stream(self, request: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        n_tokens = 0
        try:
            self.wfile.write(b": heartbeat\n\n")
            more = {"result": self.scene.record, "cell": self.scene.begun, "token": self.scene.each}
            for name, data in stream(request):
                time.sleep(self.scene.wait_s if name == "cell" else 0)
                self.send(name, {**data, **more.get(name, {})})
                n_tokens += name == "token"
                if name == "token" and self.scene.event:
                    self.send("error", self.scene.event)
                    return
                if name == "token" and self.scene.cut_after == n_tokens:
                    return
                time.sleep(self.scene.delay_s if name == "token" else 0)
        except (BrokenPipeError, ConnectionResetError):
            self.scene.left.set()

    def send(self, name: str, data: dict[str, Any]) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()


class FakeServer:
    """The server in a thread, and its scene."""

    def __init__(self) -> None:
        self.scene = Scene()
        handler = type("SceneHandler", (Handler,), {"scene": self.scene})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """End the server."""
        self.server.shutdown()
        self.server.server_close()
