"""Which backend an error sentence advises."""

from __future__ import annotations


def cpu_backend() -> str:
    """Return the better backend for this CPU: our own library where it runs, or else ONNX Runtime."""
    from cellscribe.engine.backends.cpu import cpu_problem

    return "onnxruntime-cpu" if cpu_problem() else "cpu"
