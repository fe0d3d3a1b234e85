"""Quantised weights against a plain float64 reference, and against ONNX Runtime's own product."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cellscribe.engine.bundle.onnx_weights import WIDE_BLOCK
from cellscribe.export.quantize import BLOCK, Quantized, block_of, dequantize, quantize_weight

Wide = npt.NDArray[np.float64]


def drawn(k: int, n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((k, n)).astype(np.float32) * np.float32(0.02)


def plain_values(quantized: Quantized, k: int) -> Wide:
    """What each code stands for, one at a time."""
    half = quantized.bits == 4
    zero = 8 if half else 128
    found = np.zeros((k, len(quantized.packed)))
    for n, column in enumerate(quantized.packed):
        for at in range(k):
            block, within = divmod(at, quantized.block)
            byte = int(column[block, within // 2 if half else within])
            code = (byte >> 4 if at % 2 else byte & 15) if half else byte
            found[at, n] = float(quantized.scales[n, block]) * (code - zero)
    return found


def absmax_error(weight: npt.NDArray[np.float32], bits: int) -> float:
    """Squared error of the usual scales: the largest number at the end of the codes."""
    k, n = weight.shape
    wide = np.zeros((-(-k // BLOCK) * BLOCK, n))
    wide[:k] = weight
    x = wide.reshape(-1, BLOCK, n)
    top = (1 << (bits - 1)) - 1
    scales = np.abs(x).max(1, keepdims=True) / top
    rounded = np.rint(x / np.where(scales == 0, 1, scales)).clip(-top - 1, top) * scales
    return float(((x - rounded) ** 2).sum())


@pytest.mark.parametrize(("bits", "block"), [(4, BLOCK), (8, BLOCK), (8, WIDE_BLOCK)])
@pytest.mark.parametrize(("k", "n"), [(32, 1), (64, 5), (40, 7), (1, 3), (289, 33)])
def test_codes_and_scales_are_those_of_the_operator(bits: int, block: int, k: int, n: int) -> None:
    weight = drawn(k, n)
    found = quantize_weight(weight, bits, block)
    blocks = -(-k // block)
    assert (found.bits, found.block) == (bits, block)
    assert found.fits(k, n)
    assert not found.fits(k + block, n)
    assert (found.packed.shape, found.packed.dtype) == ((n, blocks, block * bits // 8), np.uint8)
    assert (found.scales.shape, found.scales.dtype) == ((n, blocks), np.float32)
    assert np.array_equal(found.scales, found.scales.astype(np.float16).astype(np.float32))
    assert np.allclose(dequantize(found, k), plain_values(found, k), rtol=1e-7, atol=0)


@pytest.mark.parametrize("bits", [4, 8])
def test_every_code_is_the_nearest_to_its_number(bits: int) -> None:
    weight = drawn(96, 40)
    found = quantize_weight(weight, bits)
    given = np.abs(weight - plain_values(found, 96))
    scales = np.repeat(found.scales.T, BLOCK, 0).astype(np.float64)
    low = -(1 << (bits - 1))
    best = np.min([np.abs(weight - scales * code) for code in range(low, -low)], 0)
    assert np.allclose(given, best, atol=1e-9)


@pytest.mark.parametrize(("bits", "gain"), [(4, 0.72), (8, 0.82)])
def test_the_search_beats_scales_by_the_largest_number(bits: int, gain: float) -> None:
    weight = drawn(1024, 64)
    error = float(((weight - dequantize(quantize_weight(weight, bits), 1024).astype(np.float64)) ** 2).sum())
    assert error < gain * absmax_error(weight, bits)


def test_weights_in_8_bits_share_scales_widely_where_that_leaves_no_padding() -> None:
    assert [block_of(bits, k) for bits, k in [(8, 1024), (8, 64), (8, 96), (8, 200), (4, 1024)]] == [64, 64, 32, 32, 32]
    for bits, block in ((4, 64), (8, 128)):
        with pytest.raises(ValueError, match=f"{block} numbers cannot share a scale in {bits} bits"):
            quantize_weight(drawn(128, 2), bits, block)


def test_a_wide_block_costs_little_in_8_bits() -> None:
    """Root mean square errors of normal weights, as shares of their deviation."""
    weight = drawn(1024, 64)
    narrow, wide = (
        float(((weight - dequantize(quantize_weight(weight, 8, block), 1024)) ** 2).mean()) ** 0.5 / 0.02
        for block in (BLOCK, WIDE_BLOCK)
    )
    assert narrow < 0.0048
    assert wide < 0.0055


def test_a_block_that_its_codes_hold_exactly_is_exact_with_either_sign() -> None:
    codes = np.tile(np.arange(-8, 8), 2).astype(np.float32)[:, None]
    weight = np.concatenate((0.25 * codes, -0.25 * codes), 1)
    found = quantize_weight(weight, 4)
    assert np.array_equal(dequantize(found, 32), weight)
    assert np.array_equal(np.sign(found.scales[:, 0]), [1, -1])  # only -8 reaches the largest


def test_zeros_and_what_lies_beyond_the_input_have_the_code_of_zero() -> None:
    assert np.all(quantize_weight(np.zeros((64, 3), np.float32), 4).packed == 0x88)
    assert np.all(quantize_weight(drawn(40, 3), 8).packed[:, 1, 8:] == 128)
    assert np.all(quantize_weight(drawn(40, 3), 4).packed[:, 1, 4:] == 0x88)


def test_pieces_do_not_show() -> None:
    weight = drawn(640, 1500)
    whole = quantize_weight(weight, 4)
    parts = [quantize_weight(np.ascontiguousarray(weight[:, at : at + 300]), 4) for at in range(0, 1500, 300)]
    assert np.array_equal(whole.packed, np.concatenate([part.packed for part in parts]))
    assert np.array_equal(whole.scales, np.concatenate([part.scales for part in parts]))


def test_a_turned_view_and_half_numbers_are_taken() -> None:
    weight = drawn(64, 10)
    assert np.array_equal(
        quantize_weight(np.ascontiguousarray(weight.T).T, 8).packed, quantize_weight(weight, 8).packed
    )
    half = weight.astype(np.float16)
    assert np.array_equal(quantize_weight(half, 8).packed, quantize_weight(half.astype(np.float32), 8).packed)


@pytest.mark.parametrize(
    ("weight", "bits", "said"),
    [
        (np.ones((32, 2), np.float32), 3, "to 4 or 8 bits, not 3"),
        (np.ones((2, 32, 2), np.float32), 4, "only matrices"),
        (np.ones((0, 2), np.float32), 4, "only matrices"),
        (np.full((32, 2), np.nan, np.float32), 4, "not finite"),
        (np.full((32, 2), -np.inf, np.float32), 8, "not finite"),
        (np.full((32, 2), 1e30, np.float32), 8, "beyond float16"),
    ],
)
def test_what_cannot_be_quantised_is_refused(weight: npt.NDArray[np.float32], bits: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        quantize_weight(weight, bits)


@pytest.mark.parametrize(
    ("bits", "k", "block"), [(4, 64, BLOCK), (4, 40, BLOCK), (8, 64, BLOCK), (8, 40, BLOCK), (8, 256, WIDE_BLOCK)]
)
@pytest.mark.parametrize(("level", "limit"), [(0, 1e-5), (4, 0.03)])
def test_onnx_runtime_multiplies_by_the_dequantised_weight(
    bits: int, k: int, block: int, level: int, limit: float
) -> None:
    onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
    import onnxruntime as ort

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    found = quantize_weight(drawn(k, 24), bits, block)
    sizes = {"K": k, "N": 24, "bits": bits, "block_size": block, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **sizes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", kind, ["b", "t", k])],
        [helper.make_tensor_value_info("y", kind, ["b", "t", 24])],
        [onnx.numpy_helper.from_array(found.packed, "w"), onnx.numpy_helper.from_array(found.scales, "s")],
    )
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((2, 3, k)).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    expected = x.astype(np.float64) @ dequantize(found, k).astype(np.float64)
    assert np.sqrt(((y - expected) ** 2).mean()) < limit * expected.std()
