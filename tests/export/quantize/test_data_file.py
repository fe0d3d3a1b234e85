from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from cellscribe.export.quantize.data_file import DataFile


def test_tensors_start_at_aligned_places_and_read_back(tmp_path: Path) -> None:
    arrays = {"a": np.arange(5, dtype=np.uint8), "b": np.arange(6, dtype=np.float32).reshape(2, 3)}
    with DataFile(tmp_path / "x.data") as data:
        tensors = [data.append(name, array) for name, array in arrays.items()]
        tensors.append(data.append("c", arrays["b"], np.float16))
    assert [one.data_type for one in tensors] == [TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT16]
    for tensor, array in zip(tensors, [arrays["a"], arrays["b"], arrays["b"].astype(np.float16)], strict=True):
        place = {one.key: one.value for one in tensor.external_data}
        assert place["location"] == "x.data"
        assert int(place["offset"]) % 64 == 0
        assert int(place["length"]) == array.nbytes
        found = np.memmap(tmp_path / "x.data", array.dtype, "r", int(place["offset"]), tuple(tensor.dims))
        assert np.array_equal(found, array)


@pytest.mark.parametrize("number", [1e6, np.nan])
def test_numbers_that_half_does_not_hold_are_refused(tmp_path: Path, number: float) -> None:
    with DataFile(tmp_path / "x.data") as data, pytest.raises(ValueError, match="float16 does not"):
        data.append("a", np.full(3, number, np.float32), np.float16)
