"""What the tests of quantised bundles share; without the export extra only the arithmetic is tested."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

MISSING = [name for name in ("torch", "onnx", "onnxscript") if find_spec(name) is None]
collect_ignore_glob = ["test_data_file.py", "test_graph.py", "test_quantize_*.py"] if MISSING else []

Quantize = Callable[[Path, str], Path]


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantize:
    """Quantise a bundle once per precision: quantized(source, "int4")."""
    made: dict[tuple[Path, str], Path] = {}

    def make(source: Path, precision: str) -> Path:
        from cellscribe.export.quantize.bundle import quantize_bundle

        if (source, precision) not in made:
            folder = tmp_path_factory.mktemp("quantized") / precision
            quantize_bundle(source, folder, precision)
            made[source, precision] = folder
        return made[source, precision]

    return make
