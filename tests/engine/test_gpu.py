from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellscribe.engine.gpu import Gpu, find_gpus, visible

LINES = """0, GPU-aa, NVIDIA H200, 580.65.06, 9.0, 143771, 140000
1, GPU-bb, NVIDIA GeForce RTX 4090, 580.65.06, 8.9, 24564, 1000
"""


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_gpus_are_what_the_drivers_tool_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch, f"cat <<'END'\n{LINES}END")
    first, second = find_gpus()
    assert first == Gpu(0, "GPU-aa", "NVIDIA H200", "580.65.06", "9.0", 143771 << 20, 140000 << 20)
    assert second.line() == (
        "NVIDIA GeForce RTX 4090, compute capability 8.9, driver 580.65.06, 1.0 GB free of 25.8 GB"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.index for gpu in find_gpus()] == [1]


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
