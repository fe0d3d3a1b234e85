from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from typer.testing import Result

from cellscribe.cli.serving import api_keys
from cellscribe.engine.errors import UsageError

Call = Callable[..., Result]
MODULES = ("fastapi", "prometheus_client", "uvicorn")
needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in MODULES), reason="the serve extra is not installed"
)


class Process:
    """A running `cellscribe serve`, and what it said on stderr."""

    def __init__(self, *options: str, **environment: str) -> None:
        command = [sys.executable, "-m", "cellscribe", "serve", "demo", "--port", "0", "--threads", "2", *options]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )
        self.said = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if found := re.search(r"http://(\S+):(\d+)", line):
                self.host, self.port = found[1], int(found[2])
                break
        else:
            raise AssertionError(self.said)
        while self.get("/health/ready")[0] != 200:
            time.sleep(0.02)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=30)

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        with closing(self.connection()) as connection:
            connection.request("GET", path, headers=headers)
            found = connection.getresponse()
            return found.status, json.loads(found.read())

    def end(self) -> int:
        """Wait for the end."""
        out, err = self.process.communicate(timeout=30)
        assert out == ""
        self.said += err
        return self.process.returncode


@contextmanager
def served(*options: str, **environment: str) -> Iterator[Process]:
    found = Process(*options, **environment)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.communicate()


@needs_extra
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_what_runs(sign: signal.Signals) -> None:
    with served("--slots", "2") as one:
        assert "2 slots" in one.said
        assert one.get("/health/ready") == (200, {"status": "ready"})
        ids = one.get("/v1/cells")[1]["ids"]
        body = {"source": "demo", "cell_ids": ids[:30], "max_new_tokens": 256, "stream": True}
        with closing(one.connection()) as connection:
            connection.request("POST", "/v1/describe", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            first = answer.read(10)
            one.process.send_signal(sign)
            told = first + answer.read()
        assert told.count(b"event: result") == 30
        assert told.endswith(b"\n\n")
        assert b"event: done" in told[-200:]
        assert one.end() == 0
        assert "Traceback" not in one.said
        assert "error" not in one.said


@needs_extra
def test_what_is_not_finished_in_time_is_refused_in_words() -> None:
    with served("--slots", "1", "--grace", "0.4") as one:
        body = {"source": "demo", "cell_ids": one.get("/v1/cells")[1]["ids"][:256], "max_new_tokens": 256}
        with closing(one.connection()) as stream, closing(one.connection()) as whole:
            for connection, is_stream in ((stream, True), (whole, False)):
                text = json.dumps(body | {"stream": is_stream})
                connection.request("POST", "/v1/describe", text, {"Content-Type": "application/json"})
            events = stream.getresponse()
            first = events.read(10)
            time.sleep(0.2)  # the other one is on its way
            began = time.monotonic()
            one.process.send_signal(signal.SIGTERM)
            refused = whole.getresponse()
            assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
            assert json.loads(refused.read())["error"]["message"].endswith("ask again later.")
            last = (first + events.read()).strip().rpartition(b"\n\n")[2]
            assert last.startswith(b'event: error\ndata: {"error":{"message":"the service is shutting down,')
        assert one.end() == 0
        assert time.monotonic() - began < 5
        assert "Traceback" not in one.said


@needs_extra
def test_keys_come_from_the_environment() -> None:
    with served("--slots", "1", CELLSCRIBE_API_KEY="first-key, second-key") as process:
        assert process.host == "127.0.0.1"
        assert process.get("/v1/models")[0] == 401
        for key in ("first-key", "second-key"):
            status, told = process.get("/v1/models", Authorization=f"Bearer {key}")
            assert (status, told["data"][0]["slots"]) == (200, 1)
        process.process.send_signal(signal.SIGTERM)
        assert process.end() == 0
        assert "-key" not in process.said


@needs_extra
def test_a_second_signal_ends_it_at_once() -> None:
    with served("--slots", "1") as one:
        body = {"source": "demo", "cell_ids": one.get("/v1/cells")[1]["ids"], "max_new_tokens": 256, "stream": True}
        with closing(one.connection()) as connection:
            connection.request("POST", "/v1/describe", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read(10)
            killer = threading.Timer(0.3, lambda: one.process.send_signal(signal.SIGINT))
            one.process.send_signal(signal.SIGINT)
            killer.start()
            assert one.end() == 0
            assert "Traceback" not in one.said


@needs_extra
def test_a_port_in_use_is_one_sentence(cellscribe: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cellscribe("serve", "demo", "--port", port)
    assert result.exit_code == 2
    assert f"error: 127.0.0.1 port {port} cannot be listened on (Address already in use);" in result.stderr


@needs_extra
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("demo", "--host", "256.1.1.1"), 2, "error: 256.1.1.1 port 8000 cannot be listened on"),
        (("demo", "--host", "203.0.113.1", "--port", 0), 2, "203.0.113.1 can be reached from other machines"),
        (("nothing",), 3, "error: nothing is not a folder"),
        (("demo", "--cells", "nothing.h5ad"), 3, "error: There is no file nothing.h5ad"),
        (("demo", "--port", 65_536), 2, "--port"),
        (("demo", "--slots", 0), 2, "--slots"),
        (("demo", "--client-share", 1.5), 2, "--client-share"),
        (("demo", "--max-queue", 100), 2, "may have 256 cells (--max-cells), and only 100 may wait (--max-queue)"),
    ],
)
def test_options_that_cannot_be(cellscribe: Call, options: tuple[Any, ...], code: int, words: str) -> None:
    result = cellscribe("serve", *options)
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_an_empty_key_is_refused(cellscribe: Call, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("CELLSCRIBE_API_KEY", text)
    with pytest.raises(UsageError, match="is set and empty; give it a key, or unset it"):
        api_keys(text)
    if all(importlib.util.find_spec(name) for name in MODULES):
        result = cellscribe("serve", "demo")
        assert result.exit_code == 2
        assert result.stderr == "error: CELLSCRIBE_API_KEY is set and empty; give it a key, or unset it.\n"


def test_keys_are_separated_by_commas() -> None:
    assert api_keys(None) == ()
    assert api_keys(" one ,two,") == ("one", "two")


def test_without_the_extra_it_says_what_to_install(cellscribe: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name in MODULES else plain(name, *a))
    result = cellscribe("serve", "demo")
    assert result.exit_code == 2
    assert result.stderr == "error: fastapi is not installed; run `pip install 'cellscribe[serve]'`.\n"


def test_the_share_of_a_client_is_explained(cellscribe: Call) -> None:
    told = " ".join(cellscribe("serve", "--help").stdout.replace("│", " ").split())
    assert "--client-share" in told
    assert "one client (a key, or an address) may take" in told
