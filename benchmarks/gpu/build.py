"""Do the kernels build, and do they compute what their references say? nvcc for this GPU, then the tests marked gpu."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from gpu.context import Context

ROOT = Path(__file__).resolve().parents[2]
_TESTS = ("tests/kernels", "tests/engine/backends/cuda")
_SANITIZED = (
    "tests/kernels/test_latent_cross.py",
    "tests/kernels/test_grouped_attention.py",
    "tests/kernels/test_skinny_linear.py",
    "tests/kernels/test_norms.py",
    "tests/kernels/test_rotary_cache.py",
)


def run(context: Context) -> None:
    """Build the library unless one was given."""
    section = context.section("build")
    if context.options.library is not None:
        section.fact(library=context.library.name, note="given, not built here")
    else:
        started = time.perf_counter()
        _compile(context)
        section.fact(library=context.library.name, build_seconds=round(time.perf_counter() - started, 1))
    section.fact(library_bytes=context.library.stat().st_size)
    section.save("ok")


def run_tests(context: Context) -> None:
    """Run the tests that need a GPU; in emulation they are only collected."""
    section = context.section("tests")
    log = context.options.work / "tests.log"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", *_TESTS, "-q", "-p", "no:cacheprovider"]
    command += ["--collect-only"] if context.options.emulate else ["--durations=5", "--maxfail=30"]
    with log.open("w", encoding="utf-8") as out:
        code = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(encoding="utf-8", errors="replace")
    section.fact(exit_code=code, summary=summary(text), only_collected=context.options.emulate)
    for line in text.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            section.row(failed=line[:300])
    passed = code in (0, 5) if context.options.emulate else code == 0
    section.save("ok" if passed else "failed", "" if passed else "some tests fail; their names are in the rows")


def run_sanitizer(context: Context) -> None:
    """Run some tests under compute-sanitizer: races and stray accesses, which the emulator cannot show."""
    section = context.section("sanitizer")
    program = shutil.which("compute-sanitizer")
    if program is None or context.options.emulate:
        section.save("skipped", "needs compute-sanitizer and a GPU")
        return
    clean = True
    for tool in ("racecheck", "memcheck", "synccheck"):
        log = context.options.work / f"{tool}.log"
        command = [program, "--tool", tool, "--error-exitcode", "7", sys.executable, "-m", "pytest", "-m", "gpu", "-q"]
        command += ["-x", "-p", "no:cacheprovider", *_SANITIZED]
        with log.open("w", encoding="utf-8") as out:
            code = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
        found = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("=========")]
        section.row(tool=tool, exit_code=code, last=found[-1][:200] if found else "")
        clean &= code == 0
    section.save("ok" if clean else "failed", "" if clean else "see the logs of the tools in the work folder")


def summary(text: str) -> str:
    """Return pytest's own last line."""
    found = [line.strip("= ") for line in text.splitlines() if re.search(r"\d+ (passed|failed|error|tests? collected)|"
             r"\d+/\d+ tests collected|no tests", line)]  # fmt: skip
    return found[-1] if found else "pytest gave no summary"


def _compile(context: Context) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import building

    context.library.parent.mkdir(parents=True, exist_ok=True)
    build = building.emulated_library if context.options.emulate else building.device_library
    build(context.library)
