"""Pickled weights that were not copied whole."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the export extra is not installed")

from cellscribe.engine.errors import CheckpointError  # noqa: E402
from cellscribe.export.checkpoint.weights import read_pickled_tensors  # noqa: E402


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.999])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, share: float) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(3000), "b": torch.zeros(3000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"is damaged or holds more than plain tensors"):
        read_pickled_tensors(path)
