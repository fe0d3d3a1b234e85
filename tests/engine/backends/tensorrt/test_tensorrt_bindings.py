"""Every TensorRT call of ours against the real bindings of both products: names, members, and arguments.

TensorRT 11 cannot be installed here, but its bindings can be imported: their library wants nine C functions, which a
library of empty functions gives it. That proves names and arguments, nothing more.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from signatures import Checker, signatures

import cellscribe

WHEEL = "tensorrt-cu13-bindings==11.4.0.106"
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
)
LIBRARIES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")
HERE = Path(__file__).parent
BUILD, RUN = "export/tensorrt", "engine/backends/tensorrt"
# What must be among the calls that were looked at, so that a check that sees nothing does not pass.
COMMON = {
    "Builder.build_serialized_network",
    "INetworkDefinition.unmark_output",
    "IOptimizationProfile.set_shape",
    "OnnxParser.parse",
    "ParserError.node_operator",
    "IPluginRegistry.load_library",
    "ICudaEngine.create_execution_context",
    "ICudaEngine.get_aliased_input_tensor",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.set_device_memory",
    "ITimingCache.serialize",
    "trt.ExecutionContextAllocationStrategy.USER_MANAGED",
}
RTX_ALONE = {
    "IBuilderConfig.set_compute_capability",
    "IRuntimeConfig.cuda_graph_strategy",
    "IRuntimeCache.serialize",
    "IExecutionContext.is_stream_capturable",
}

SCRIPT = """
import json, sys
from pathlib import Path
sys.path[:0] = [{bindings!r}, {here!r}]
import tensorrt_bindings as trt
from signatures import Checker
checker = Checker(trt)
for path in {paths!r}:
    checker.check(Path(path))
print(json.dumps({{"version": trt.__version__, "problems": checker.problems, "checked": sorted(checker.checked)}}))
"""


def sources() -> list[Path]:
    """Files that call TensorRT."""
    package = Path(str(cellscribe.__file__)).parent
    top = package if (package / "export").is_dir() else package.parent
    found = [path for folder in (BUILD, RUN) for path in sorted((top / folder).glob("*.py"))]
    assert len(found) > 15
    return found


@pytest.fixture(scope="session")
def enterprise(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Folder with the bindings of TensorRT 11 and empty libraries; kept in pytest's cache, where that is in use."""
    cache = getattr(pytestconfig, "cache", None)
    folder: Path = cache.mkdir("tensorrt-11.4") if cache else tmp_path_factory.mktemp("tensorrt-11.4")
    if not (folder / "tensorrt_bindings").is_dir():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
        fetched = subprocess.run(command, capture_output=True, timeout=120, check=False)
        wheels = list(folder.glob("*.whl"))
        if fetched.returncode or not wheels:
            pytest.skip(f"{WHEEL} cannot be fetched")
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(folder)
    if not all((folder / "tensorrt_bindings" / name).is_file() for name in LIBRARIES):
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler for the empty libraries")
        source = folder / "empty.c"
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
        for name in LIBRARIES:
            target = folder / "tensorrt_bindings" / name
            subprocess.run(
                [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(target), str(source)], check=True
            )
    return folder


def test_every_call_exists_in_tensorrt_11(enterprise: Path) -> None:
    paths = [str(path) for path in sources() if not path.name.startswith("rtx")]
    script = SCRIPT.format(bindings=str(enterprise), here=str(HERE), paths=paths)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert found["version"].startswith("11.")
    assert found["problems"] == []
    assert set(found["checked"]) >= COMMON
    assert not set(found["checked"]) & (RTX_ALONE - {"IExecutionContext.is_stream_capturable"})


def test_what_is_called_of_tensorrt_for_rtx_alone_is_not_in_tensorrt_11(enterprise: Path) -> None:
    """If it were, the two products would need no files of their own."""
    paths = [str(path) for path in sources() if path.name.startswith("rtx")]
    assert len(paths) == 2
    script = SCRIPT.format(bindings=str(enterprise), here=str(HERE), paths=paths)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    problems = " ".join(json.loads(done.stdout)["problems"])
    for name in ("num_compute_capabilities", "create_runtime_cache", "is_stream_capturable"):
        assert f"has no {name}" in problems


def test_every_call_exists_in_tensorrt_for_rtx() -> None:
    checker = Checker(pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed"))
    for path in sources():
        checker.check(path)
    assert checker.problems == []
    assert checker.checked >= COMMON | RTX_ALONE


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("trt.Nonsense()", "trt has no Nonsense"),
        ("trt.DataType.FP7", "trt.DataType has no FP7"),
        ("engine.get_binding_shape(0)", "ICudaEngine has no get_binding_shape"),
        ("engine.get_tensor_name()", "does not fit"),
        ("engine.get_tensor_name(0, 1)", "does not fit"),
        ("engine.get_tensor_name(nonsense=0)", "does not fit"),
        ("trt.Runtime(1).deserialize_cuda_engine(b'').create_context()", "ICudaEngine has no create_context"),
        ("self._kept.enqueue(0)", "Runtime has no enqueue"),
    ],
)
def test_the_check_finds_what_does_not_exist(tmp_path: Path, line: str, why: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    source = tmp_path / "source.py"
    source.write_text(
        "class A:\n    def __init__(self, trt):\n        self._kept = trt.Runtime(1)\n"
        f"    def f(self, trt, engine: ICudaEngine):\n        return {line}\n"
    )
    checker = Checker(trt)
    checker.check(source)
    assert len(checker.problems) == 1
    assert why in checker.problems[0]


def test_signatures_are_read_from_docstrings() -> None:
    (one,) = signatures("f(self: a.b.C, x: Tuple[int, str], y: int = 0) -> a.b.D\n\n    Text.", "f")
    assert (one.names, one.required, one.returns) == (("x", "y"), 1, "D")
