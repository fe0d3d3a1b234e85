from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest

from cellscribe.engine.bench import peaks, roofline
from cellscribe.engine.bench.ceilings import Ceilings
from cellscribe.engine.bench.hardware import Hardware, peak_memory_bytes, reset_peak_memory
from cellscribe.engine.bench.roofline import Roofline
from cellscribe.engine.errors import BackendError, InputError


def test_rows_are_judged_by_the_best_of_all_measurements() -> None:
    found = Roofline(2)
    assert found.ceilings("fp32") is None
    found.add({"read": 20e9, "copy": 22e9, "fp32": 100e9})
    found.add({"read": 25e9, "copy": 21e9, "fp32": 90e9})
    assert found.ceilings("fp32") == Ceilings(25e9, 100e9, 100e9)
    assert found.ceilings("int8") == Ceilings(25e9, None)
    found.add({"int8": 400e9})
    assert found.ceilings("int8") == found.ceilings("int4") == Ceilings(25e9, 400e9)
    assert found.drifting == ("read",)


def test_it_says_when_other_work_ran() -> None:
    found = Roofline(2)
    found.add({"read": 20e9, "busy": 0.97})
    assert not found.was_shared
    found.add({"read": 20e9, "busy": 0.6})
    assert found.was_shared
    assert "busy" not in found.rates


def test_it_comes_back_from_json() -> None:
    found = Roofline(2, {"read": [20e9, 25e9], "fp32": [1e11]}, [0.98, 0.5])
    assert Roofline.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    for damaged in ({"threads": 2}, {"threads": 2, "rates": [1]}, {"threads": "two", "rates": {}}):
        with pytest.raises(InputError, match="damaged"):
            Roofline.from_dict(damaged)


def test_rates_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "MATRIX_SIZES", (256,))
    native = ModuleType("cellscribe.engine.backends.cpu.peak")
    native.__dict__["peak"] = lambda threads: {"int8": 7e9 * threads, "read": 1.0}
    monkeypatch.setitem(sys.modules, "cellscribe.engine.backends.cpu", ModuleType("cpu"))
    monkeypatch.setitem(sys.modules, "cellscribe.engine.backends.cpu.peak", native)
    found = peaks.measure_peaks(2, array_bytes=2**22)
    assert found["int8"] == 14e9
    assert 0 < found["busy"] < 1.5
    assert all(1e8 < found[name] < 1e13 for name in ("read", "copy", "fp32"))


def test_the_native_library_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cellscribe.engine.backends.cpu.peak", None)
    assert peaks.native_peaks(1) == {}


def test_it_is_measured_in_a_process_of_its_own_with_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def run(command: list[str], *, env: dict[str, str], **_: object) -> object:
        seen.update(command=command[1:], threads=env["OPENBLAS_NUM_THREADS"])
        return type("Done", (), {"stdout": '{"read": 2e9, "copy": 1e9, "fp32": 3e9}'})

    monkeypatch.setattr(roofline.subprocess, "run", run)
    found = Roofline(3)
    found.measure(is_quick=True)
    assert seen == {"command": ["-m", "cellscribe.engine.bench.peaks", "3", "quick"], "threads": "3"}
    assert found.bandwidth == 2e9


def test_a_failing_process_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline.sys, "executable", "/nowhere/python")
    with pytest.raises(BackendError, match="roofline could not be measured"):
        Roofline(1).measure()


def test_the_machine_is_described_without_paths() -> None:
    here = Hardware.here()
    assert here.cores >= 1
    assert here.memory_gib > 0
    assert json.dumps(here.as_dict())
    assert "/" not in here.processor
    assert Hardware("a CPU", 1, 2.0, 32 * 2**20, ("a GPU",)).line() == "a CPU, 1 core, 2 GiB, 32 MiB last cache, a GPU"


def test_peak_memory_is_of_what_was_done_since_the_reset() -> None:
    reset_peak_memory()
    before = peak_memory_bytes()
    if before is None:
        pytest.skip("this system does not say how much memory a process held")
    held = bytearray(b"1") * (64 * 2**20)
    after = peak_memory_bytes()
    assert after is not None
    assert after - before > 0.8 * len(held)
