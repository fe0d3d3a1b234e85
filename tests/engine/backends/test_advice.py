from __future__ import annotations

import pytest

from cellscribe.engine.backends.advice import cpu_backend
from cellscribe.engine.backends.budget import Budget, SlotBytes, check_room
from cellscribe.engine.backends.sessions import CPU, Device, running
from cellscribe.engine.errors import BackendError, RoomError
from cellscribe.kernels.cpu_library import PATH_VARIABLE

FULL = Budget(10**9, 0, SlotBytes(10**9, 0, 0, 0, 0), 1)


def advised_after_a_failure(place: Device) -> str:
    with pytest.raises(BackendError) as caught, running(place):
        raise RuntimeError("a node failed")
    return str(caught.value)


def test_our_library_is_advised_where_it_runs(native_library: None) -> None:
    assert cpu_backend() == "cpu"
    for place in (CPU, Device("cuda", 1)):
        assert advised_after_a_failure(place).endswith("(a node failed); try again with --backend cpu.")
    with pytest.raises(RoomError, match=r"or use --backend cpu\.$"):
        check_room(10, FULL, "GPU 0")


def test_onnx_runtime_is_advised_elsewhere_unless_it_is_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, "")
    assert cpu_backend() == "onnxruntime-cpu"
    assert advised_after_a_failure(Device("cuda", 1)).endswith("try again with --backend onnxruntime-cpu.")
    assert advised_after_a_failure(CPU).endswith("(a node failed); check the bundle with `cellscribe verify`.")
    with pytest.raises(RoomError, match=r"or use --backend onnxruntime-cpu\.$"):
        check_room(10, FULL, "GPU 0")
