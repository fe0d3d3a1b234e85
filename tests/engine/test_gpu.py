from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from cellscribe.engine import gpu as gpu_module
from cellscribe.engine.gpu import Gpu, find_gpus, gpu_number, has_gpu, visible

LINES = """0, GPU-aa, NVIDIA H200, 580.65.06, 9.0, 143771, 140000
1, GPU-bb, NVIDIA GeForce RTX 4090, 580.65.06, 8.9, 24564, 1000
"""


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu_module, "_driver_ids", lambda: ())


def test_gpus_are_what_the_drivers_tool_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch, f"cat <<'END'\n{LINES}END")
    first, second = find_gpus()
    assert first == Gpu(0, "GPU-aa", "NVIDIA H200", "580.65.06", "9.0", 143771 << 20, 140000 << 20)
    assert second.line() == (
        "NVIDIA GeForce RTX 4090, compute capability 8.9, driver 580.65.06, 1.0 GB free of 25.8 GB"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.index for gpu in find_gpus()] == [1]


def test_the_driver_gives_the_order_and_leaves_out_what_the_process_does_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, f"cat <<'END'\n{LINES}END")
    monkeypatch.setattr(gpu_module, "_driver_ids", lambda: ("bb", "aa"))
    assert [gpu.uuid for gpu in find_gpus()] == ["GPU-bb", "GPU-aa"]
    monkeypatch.setattr(gpu_module, "_driver_ids", lambda: ("part-of-aa", "bb"))
    assert [gpu.uuid for gpu in find_gpus()] == ["GPU-bb"]
    numbered = [gpu_number(number) for number in range(3)]
    assert [gpu and gpu.uuid for gpu in numbered] == [None, "GPU-bb", None]


def test_a_driver_without_its_tool_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch, "exit 9")
    assert not has_gpu()
    monkeypatch.setattr(gpu_module, "_driver_ids", lambda: ("aa",))
    assert has_gpu()
    assert find_gpus() == ()


def test_the_drivers_tool_runs_once_unless_the_free_memory_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    pretend(tmp_path, monkeypatch, f"echo >> {calls}\ncat <<'END'\n{LINES}END")
    for _ in range(3):
        assert len(find_gpus()) == 2
    assert calls.stat().st_size == 1
    gpu_number(1, is_fresh=True)
    assert calls.stat().st_size == 2


def test_ids_are_written_as_the_drivers_tool_writes_them() -> None:
    def write(raw: ctypes.Array[ctypes.c_ubyte], _device: object) -> int:
        raw[:] = range(16)
        return 0

    driver = SimpleNamespace(cuDeviceGet=lambda *_: 0, cuDeviceGetUuid_v2=write)
    found = gpu_module._driver_id(driver, 0)  # type: ignore[arg-type]
    assert found == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert gpu_module._plain("GPU-" + found.upper()) == found


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found", "echo 0, x, [N/A]"])
def test_a_tool_that_finds_nothing_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    pretend(tmp_path, monkeypatch, script)
    assert find_gpus() == ()


@pytest.mark.parametrize(
    ("chosen", "left"),
    [("1,0", [1, 0]), ("GPU-b", [1]), ("", []), ("-1", []), ("0,7,1", [0]), (" 1 ", [1])],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(chosen: str, left: list[int]) -> None:
    gpus = [Gpu(i, f"GPU-{'ab'[i]}", "x", "1", "8.9", 1, 1) for i in range(2)]
    assert [gpu.index for gpu in visible(gpus, {"CUDA_VISIBLE_DEVICES": chosen})] == left
    assert visible(gpus, {}) == tuple(gpus)
