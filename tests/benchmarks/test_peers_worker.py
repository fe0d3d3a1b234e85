"""The workers of the benchmarks: a protocol that survives noise, errors, deaths and silence; and taking turns."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from peers.worker import Worker, WorkerError, interleave  # noqa: E402

STAND_IN = """
    import os, subprocess, sys, time
    from peers.protocol import Engine, StepClock, serve

    class StandIn(Engine):
        def do_open(self, offset=0):
            self.offset = offset
            print("a library greets")
            os.write(1, b"and so does one written in C")
            return {"precision": "fp32"}
        def do_generate(self, prompts, new_tokens):
            clock = StepClock()
            for _ in range(new_tokens):
                time.sleep(0.001)
                clock.tick()
            return clock.answer([[row[-1] + self.offset + i for i in range(new_tokens)] for row in prompts], new_tokens)
        def do_fail(self):
            raise ValueError("the model is made of cheese\\nand more lines")
        def do_die(self):
            print("something went wrong deep down", file=sys.stderr, flush=True)
            os._exit(7)
        def do_crash(self):
            os.kill(os.getpid(), 11)
        def do_hang(self):
            child = subprocess.Popen(["sleep", "60"])
            open(os.environ["CHILD"], "w").write(str(child.pid))
            time.sleep(60)
        def do_time(self, log):
            with open(log, "a") as file:
                file.write(os.environ["NAME"])
            return {}

    serve(StandIn())
"""


class Workers:
    """Makes workers that run a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Worker] = []

    def __call__(self, name: str = "one", script: str = STAND_IN) -> Worker:
        path = self.folder / f"{name}.py"
        path.write_text(textwrap.dedent(script))
        variables = {"CHILD": str(self.folder / "child"), "NAME": name}
        log = self.folder / f"{name}.log"
        self.made.append(Worker(name, sys.executable, str(path), log=log, variables=variables, timeout_seconds=20))
        return self.made[-1]


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    making = Workers(tmp_path)
    yield making
    for one in making.made:
        one.close()


def test_requests_are_answered_and_prints_do_not_disturb(workers: Workers) -> None:
    with workers() as worker:
        opened = worker.ask({"do": "open", "offset": 5})
        assert opened["precision"] == "fp32"
        assert opened["open_seconds"] >= 0
        assert 0 < opened["rss_bytes"] <= opened["peak_bytes"]
        answer = worker.ask({"do": "generate", "prompts": [[1, 2], [3, 4]], "new_tokens": 3})
        assert answer["tokens"] == [[7, 8, 9], [9, 10, 11]]
        assert len(answer["step_seconds"]) == 2
        assert answer["seconds"] >= answer["prefill_seconds"] + sum(answer["step_seconds"]) > 0
    assert not worker.is_alive
    assert "a library greets" in (workers.folder / "one.log").read_text()


def test_an_error_is_one_sentence_and_the_worker_goes_on(workers: Workers) -> None:
    worker = workers()
    with pytest.raises(WorkerError, match=r"^one: ValueError: the model is made of cheese$"):
        worker.ask({"do": "fail"})
    with pytest.raises(WorkerError, match="does not know the request 'dance'"):
        worker.ask({"do": "dance"})
    with pytest.raises(WorkerError, match="surprise"):
        worker.ask({"do": "open", "surprise": 1})
    assert worker.ask({"do": "open"})["ok"]


def test_a_worker_that_dies_is_reported_with_its_last_words(workers: Workers) -> None:
    worker = workers()
    with pytest.raises(WorkerError, match=r"ended with code 7; it last said: something went wrong deep down"):
        worker.ask({"do": "die"})
    with pytest.raises(WorkerError, match="ended with code 7"):
        worker.ask({"do": "open"})
    with pytest.raises(WorkerError, match="ended by SIGSEGV"):
        workers("two").ask({"do": "crash"})


def test_garbage_is_no_answer(workers: Workers) -> None:
    worker = workers("noise", "print('Loading ...', flush=True)\nimport time; time.sleep(60)")
    with pytest.raises(WorkerError, match=r"noise answered 'open' with something that is no answer: 'Loading \.\.\.'"):
        worker.ask({"do": "open"})
    assert not worker.is_alive


def test_a_silent_worker_is_ended_with_its_children(workers: Workers) -> None:
    worker = workers()
    worker.ask({"do": "open"})
    with pytest.raises(WorkerError, match=r"one did not answer 'hang' within 0\.5 s"):
        worker.ask({"do": "hang"}, timeout_seconds=0.5)
    assert not worker.is_alive
    child = int((workers.folder / "child").read_text())
    for _ in range(50):
        if not _runs(child):
            return
        time.sleep(0.1)
    raise AssertionError("the worker's child outlived it")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_workers_take_turns_and_the_order_rotates(workers: Workers, tmp_path: Path) -> None:
    three, log = [workers(name) for name in "ABC"], tmp_path / "turns"
    interleave(three, {"do": "time", "log": str(tmp_path / "warm")}, 1, settle_seconds=0.0)  # starting up is not idling
    samples = interleave(three, {"do": "time", "log": str(log)}, 3, settle_seconds=0.0)
    assert log.read_text() == "ABC" + "BAC" + "CAB"
    assert {name: len(one) for name, one in samples.answers.items()} == {"A": 3, "B": 3, "C": 3}
    assert not samples.failures
    assert all(seconds < 0.1 for seconds in samples.idle_cpu_seconds.values())


def test_one_failing_worker_does_not_stop_the_others(workers: Workers, tmp_path: Path) -> None:
    two, log = [workers(name) for name in "AB"], tmp_path / "turns"
    requests = {"A": {"do": "die"}, "B": {"do": "time", "log": str(log)}}
    samples = interleave(two, requests, 2, settle_seconds=0.0)
    assert log.read_text() == "BB"
    assert list(samples.failures) == ["A"]
    assert samples.answers["A"] == []
