from __future__ import annotations

from importlib.util import find_spec

# Export needs torch; without the extra there is nothing here to test.
MISSING = [name for name in ("torch", "onnx", "onnxscript") if find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_report_header() -> str:
    return f"tests/export left out: {', '.join(MISSING)} not installed (the export extra)" if MISSING else ""
