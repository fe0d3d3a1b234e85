from __future__ import annotations

from importlib.util import find_spec

# Building needs onnx, and the graphs that are built here torch; without the export extra there is nothing to test.
MISSING = [name for name in ("torch", "onnx", "onnxscript") if find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []
