"""The TensorRT plugin, driven by a small program that goes through TensorRT's own sequence of calls.

Needs TensorRT's public headers (TensorRT_ROOT, the folder with include/NvInfer.h), and no library of TensorRT. Here the
kernel runs in the emulator; on a machine with a GPU the same program runs it there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS, HARNESS = ROOT / "kernels", Path(__file__).parent / "harness"
PLUGIN, PROGRAMS = KERNELS / "tensorrt", ("run", "refuse")
INCLUDES = [f"-I{folder}" for folder in (KERNELS, KERNELS / "include", HARNESS)]
SOURCES = [*sorted(PLUGIN.glob("*.cpp")), PLUGIN / "mask_bytes.cu", KERNELS / "latent_cross.cu"]
EXPORTS = PLUGIN / "exports.map"


@dataclass(frozen=True)
class Case:
    """A plugin, the greatest sizes of its profile, and the sizes that it runs: slots, tokens, kept tokens, genes."""

    heads: int
    width: int
    greatest: str
    sizes: tuple[str, ...]
    with_weights: int = 0
    bool_mask: int = 0

    def arguments(self) -> list[str]:
        return [*map(str, (self.heads, self.width, self.with_weights, self.bool_mask)), self.greatest, *self.sizes]


CASES = {
    "step": Case(4, 64, "3,1,1,70", ("3,1,1,70", "1,1,1,1", "2,1,1,33")),
    "prompt": Case(4, 64, "2,19,1,70", ("2,19,1,70", "1,19,1,41", "2,1,1,70")),
    "weights": Case(6, 64, "2,9,9,40", ("2,9,9,40", "2,9,2,40", "1,3,3,7"), with_weights=1),
    "wide": Case(32, 512, "1,2,2,50", ("1,2,2,50", "1,1,1,17"), with_weights=1),
    "fewer genes for more blocks": Case(4, 512, "1,1,1,128", ("1,1,1,128", "1,1,1,96")),
    "bool mask": Case(4, 128, "2,2,1,37", ("2,2,1,37",), bool_mask=1),
}


@pytest.fixture(scope="session")
def headers() -> Path:
    root = os.environ.get("TensorRT_ROOT")  # noqa: SIM112 (spelt as CMake spells it)
    if not root:
        pytest.skip("needs TensorRT's public headers: set TensorRT_ROOT to the folder with include/NvInfer.h")
    folder = Path(root) / "include"
    if not (folder / "NvInfer.h").is_file():
        pytest.skip(f"TensorRT_ROOT is {root}, but {folder} has no NvInfer.h")
    return folder


@pytest.fixture(scope="session")
def emulated_plugin(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin over emulated kernels, and the programs that drive it."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("plugin")
    strict = ["-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    quiet = ["-Wno-unknown-pragmas", "-Wno-unused-function"]
    common = [compiler, *strict, *quiet, "-DCELLSCRIBE_EMULATED", *INCLUDES, "-isystem", str(headers)]
    common += ["-isystem", str(HARNESS / "shim"), "-fPIC", "-fvisibility=hidden", "-x", "c++"]
    _run_all([[*common, "-c", str(s), "-o", str(folder / f"{s.stem}.o")] for s in SOURCES])
    objects = [str(folder / f"{source.stem}.o") for source in SOURCES]
    library = ["-o", str(folder / "plugin.so")]
    _run_all([[compiler, "-shared", f"-Wl,--version-script={EXPORTS},--no-undefined", *objects, *library]])
    programs = [[*common, str(HARNESS / f"{name}.cpp"), "-ldl", "-o", str(folder / name)] for name in PROGRAMS]
    _run_all(programs)
    return folder


@pytest.fixture(scope="session")
def device_plugin(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for the GPU of this machine."""
    compiler = shutil.which("nvcc")
    if compiler is None or shutil.which("nvidia-smi") is None:
        pytest.skip("needs nvcc and an NVIDIA GPU")
    if subprocess.run(["nvidia-smi"], capture_output=True).returncode:
        pytest.skip("needs an NVIDIA GPU")
    folder = tmp_path_factory.mktemp("plugin")
    common = [compiler, "-std=c++17", "-O3", *INCLUDES, "-isystem", str(headers)]
    shared = ["-shared", "-arch=native", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    link = ["-Xlinker", f"--version-script={EXPORTS}"]
    sources = [str(source) for source in SOURCES]
    _run_all([[*common, *shared, *link, *sources, "-o", str(folder / "plugin.so")]])
    _run_all([[*common, str(HARNESS / f"{name}.cpp"), "-ldl", "-o", str(folder / name)] for name in PROGRAMS])
    return folder


@pytest.mark.parametrize("name", CASES)
def test_it_computes_through_tensorrts_sequence(emulated_plugin: Path, name: str) -> None:
    _compute(emulated_plugin, CASES[name])


def test_it_refuses_what_it_cannot_do(emulated_plugin: Path) -> None:
    _play(emulated_plugin, "refuse", [])


def test_it_exports_its_two_entries_alone(emulated_plugin: Path) -> None:
    told = subprocess.run(
        ["nm", "-D", "--defined-only", str(emulated_plugin / "plugin.so")], check=True, capture_output=True, text=True
    ).stdout
    assert sorted(line.split()[-1] for line in told.splitlines()) == ["getCreators", "setLoggerFinder"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_it_computes_on_a_gpu(device_plugin: Path, name: str) -> None:
    _compute(device_plugin, CASES[name])


@pytest.mark.gpu
def test_it_computes_full_sizes_on_a_gpu(device_plugin: Path) -> None:
    _compute(device_plugin, Case(32, 512, "96,1,1,1201", ("96,1,1,1201", "95,1,1,1201", "33,1,1,700")))
    _compute(device_plugin, Case(32, 512, "2,90,1,1201", ("2,90,1,1201", "1,89,1,1200")))


def _compute(folder: Path, case: Case) -> None:
    lines = _play(folder, "run", case.arguments()).splitlines()
    assert len(lines) == len(case.sizes)
    for line in lines:
        words = line.split()
        errors = dict(zip(words[::2], map(float, words[1::2]), strict=True))
        assert errors.keys() == {"mixed", "mass"} | ({"weights"} if case.with_weights else set())
        assert errors["mixed"] < 4e-3, line  # halves of up to about 4
        assert errors["mass"] < 1e-3, line
        assert errors.get("weights", 0.0) < 1e-3, line


def _play(folder: Path, program: str, arguments: list[str]) -> str:
    done = subprocess.run(
        [str(folder / program), str(folder / "plugin.so"), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr or f"ended with {done.returncode}"
    return done.stdout


def _run_all(commands: list[list[str]]) -> None:
    """Run compilers beside each other."""
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        _, told = process.communicate()
        assert process.returncode == 0, told
