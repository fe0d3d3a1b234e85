"""Runs some parts in this process: ``python -m gpu.parts --work DIR --target FILE PART ...``; gpu.run calls it."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from gpu.context import Context, Options
from gpu.results import FAILED, RUNNING

# part -> module and function of it; a module is imported when its part runs
PARTS = {
    "machine": ("machine", "run"),
    "build": ("build", "run"),
    "tests": ("build", "run_tests"),
    "bundle": ("bundle", "run"),
    "slots": ("slots", "run"),
    "encoder": ("encoder", "run"),
    "parity": ("parity", "run"),
    "kernels": ("kernels", "run"),
    "materialised": ("slots", "run_materialised"),
    "int8": ("slots", "run_int8"),
    "profile": ("profiling", "run"),
    "torch": ("peers", "run"),
    "torch-compiled": ("peers", "run_compiled"),
    "transformers": ("peer_llama", "run"),
    "transformers-static": ("peer_llama", "run_static"),
    "onnxruntime-cuda": ("peer_ort", "run"),
    "sweeps": ("kernels", "run_sweeps"),
    "tensorrt-rtx": ("rtx", "run"),
    "sanitizer": ("build", "run_sanitizer"),
}
# Parts that run only when they are asked for: a run of ten minutes has no time for them.
ON_REQUEST = frozenset({"sanitizer"})


def main() -> None:
    """Run the parts in turn; one that fails is recorded, and the next one runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--library", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--emulate", action="store_true")
    parser.add_argument("parts", nargs="+", choices=PARTS)
    asked = parser.parse_args()
    options = Options(asked.work, asked.target, asked.emulate, asked.library, asked.bundle)
    context = Context(options)
    failed = [part for part in asked.parts if not run_part(context, part)]
    sys.exit(1 if failed else 0)


def run_part(context: Context, part: str) -> bool:
    """Run one part; record why where it fails."""
    context.store.write(part, {"status": RUNNING, "rows": []})
    module, function = PARTS[part]
    try:
        work: Callable[[Context], None] = getattr(import_module(f"gpu.{module}"), function)
        work(context)
    except Exception as error:
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}".splitlines()[0][:500]
        context.store.write(part, {**context.store.read(part), "status": FAILED, "why": why})
        return False
    return bool(context.store.read(part)["status"] != FAILED)


if __name__ == "__main__":
    main()
