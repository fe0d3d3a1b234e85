from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.errors import BundleError


@pytest.mark.parametrize("file", ["encoder.onnx", "decoder.onnx"])
def test_weights_equal_those_the_onnx_package_reads(tiny_bundle: Path, file: str) -> None:
    onnx = pytest.importorskip("onnx")
    weights, model = onnx_weights(tiny_bundle / file), onnx.load(tiny_bundle / file)
    floats = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    assert len(floats) > 10
    for one in floats:
        assert np.array_equal(weights[one.name], onnx.numpy_helper.to_array(one))
    norms = [node for node in model.graph.node if node.op_type in ("RMSNormalization", "LayerNormalization")]
    assert norms
    for node in norms:
        (epsilon,) = (a.f for a in node.attribute if a.name == "epsilon")
        assert weights.epsilon(node.input[1]) == epsilon


def test_a_weight_that_equals_another_is_found_by_its_own_name(tiny_bundle: Path) -> None:
    weights = onnx_weights(tiny_bundle / "decoder.onnx")
    assert weights.aliases  # the random model has many zero biases and scales of one
    for name, kept in weights.aliases.items():
        assert name not in weights.tensors
        assert weights[name] is weights.tensors[kept]
    assert weights.epsilon("decoder.layers.1.norm2.weight") == weights.epsilon("decoder.layers.0.norm1.weight")


def test_a_missing_weight_is_one_sentence(tiny_bundle: Path) -> None:
    weights = onnx_weights(tiny_bundle / "encoder.onnx")
    assert weights.get("nothing") is None
    with pytest.raises(BundleError, match="no weight named nothing"):
        weights["nothing"]
    with pytest.raises(BundleError, match="no norm with the scale"):
        weights.epsilon("encoder.layers.0.qkv.weight")


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x3a\x05ab"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "decoder.onnx"
    path.write_bytes(content)
    if not content:
        assert not onnx_weights(path).tensors
        return
    with pytest.raises(BundleError, match="cannot be read"):
        onnx_weights(path)


def quantized_file(folder: Path, packed: np.ndarray, scales: np.ndarray) -> Path:
    """A graph without nodes that holds a quantised weight w, and `other` as another name for it."""
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(packed, "w.packed"), onnx.numpy_helper.from_array(scales, "w.scales")]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    onnx.helper.set_model_props(model, {"alias:other": "w"})
    onnx.save(model, str(folder / "x.onnx"))
    return folder / "x.onnx"


@pytest.mark.parametrize(("bits", "width"), [(4, 16), (8, 32), (8, 64)])
def test_a_quantised_weight_has_codes_scales_and_bits(tmp_path: Path, bits: int, width: int) -> None:
    packed, scales = np.arange(6 * width, dtype=np.uint8).reshape(3, 2, width), np.ones((3, 2), np.float32)
    weights = onnx_weights(quantized_file(tmp_path, packed, scales))
    for name in ("w", "other"):
        found = weights.quantized(name)
        assert found is not None
        assert np.array_equal(found.packed, packed)
        assert np.array_equal(found.scales, scales)
        assert found.bits == bits
    assert weights.quantized("nothing") is None
    assert weights.get("w") is None


@pytest.mark.parametrize(
    ("packed", "scales"),
    [
        (np.zeros((3, 2, 8), np.uint8), np.ones((3, 2), np.float32)),
        (np.zeros((3, 2, 16), np.int8), np.ones((3, 2), np.float32)),
        (np.zeros((3, 2, 16), np.uint8), np.ones((3, 2), np.float64)),
        (np.zeros((3, 2, 16), np.uint8), np.ones((3, 1), np.float32)),
        (np.zeros((3, 2, 16), np.uint8), np.ones(6, np.float32)),
        (np.zeros(96, np.uint8), np.ones((3, 2), np.float32)),
    ],
)
def test_a_quantised_weight_of_another_form_is_one_sentence(
    tmp_path: Path, packed: np.ndarray, scales: np.ndarray
) -> None:
    with pytest.raises(BundleError, match="quantised weight w of unknown form"):
        onnx_weights(quantized_file(tmp_path, packed, scales)).quantized("w")
