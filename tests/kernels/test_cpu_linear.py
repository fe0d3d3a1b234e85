"""Products of the native CPU library against sums in float64."""

from __future__ import annotations

import numpy as np
import pytest

from cellscribe.kernels.cpu_library import CpuLibrary, Kind, PackedWeight, instruction_sets

pytestmark = pytest.mark.usefixtures("native_library")
SETS = instruction_sets() or ("none",)
SHAPES = [(1, 1), (7, 5), (32, 16), (33, 17), (96, 144), (600, 50), (1201, 64)]  # K, N
ROWS = (1, 2, 3, 5, 8, 13, 70)
FORMS = [*((kind, 32) for kind in Kind), (Kind.INT8, 64), (Kind.INT8, 128)]  # and how many numbers share a scale


@pytest.fixture(scope="module", params=SETS)
def library(request: pytest.FixtureRequest) -> CpuLibrary:
    return CpuLibrary(2, request.param)


def to_bf16(x: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def blocks_of(
    k: int, n: int, bits: int, group: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random packed bytes, scales, and the numbers [K, N] they stand for; padding holds the zero point."""
    blocks = -(-k // group)
    zero = 8 if bits == 4 else 128
    codes = rng.integers(0, 2**bits, (n, blocks * group))
    codes[:, k:] = zero
    scales = rng.uniform(-0.1, 0.1, (n, blocks)).astype(np.float16).astype(np.float32)
    numbers = (codes - zero) * np.repeat(scales, group, 1).astype(np.float64)
    by_block = codes.reshape(n, blocks, group).astype(np.uint8)
    packed = by_block if bits == 8 else by_block[..., ::2] | by_block[..., 1::2] << 4
    return packed, scales, numbers[:, :k].T


def rounded_rows(x: np.ndarray, group: int) -> np.ndarray:
    """Rows as a product with bytes sees them: rounded to a 127th of the largest of a group."""
    k = x.shape[1]
    padded = np.pad(x, ((0, 0), (0, -k % group))).reshape(len(x), -1, group)
    most = np.abs(padded).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
    return (np.rint(padded * inverse) * (most / np.float32(127))).reshape(len(x), -1)[:, :k]


def made(
    library: CpuLibrary, kind: Kind, k: int, n: int, rng: np.random.Generator, group: int = 32
) -> tuple[PackedWeight, np.ndarray]:
    weight = PackedWeight(library, kind, k, n, group=group)
    if kind >= Kind.INT8:
        packed, scales, numbers = blocks_of(k, n, 8 if kind == Kind.INT8 else 4, group, rng)
        weight.put_blocks(0, packed, scales)
        return weight, numbers
    numbers = rng.normal(size=(k, n)).astype(np.float16 if kind == Kind.HALF else np.float32)
    cut = n // 3  # in two parts, which need not end where a panel does
    weight.put(0, numbers[:, :cut]) if cut else None
    weight.put(cut, numbers[:, cut:])
    return weight, to_bf16(numbers) if kind == Kind.BRAIN else numbers


@pytest.mark.parametrize(("kind", "group"), FORMS)
@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_product(library: CpuLibrary, kind: Kind, group: int, k: int, n: int) -> None:
    rng = np.random.default_rng(k * 1000 + n)
    weight, numbers = made(library, kind, k, n, rng, group)
    for count in ROWS:
        x = rng.normal(size=(count, k)).astype(np.float32)
        seen = to_bf16(x) if kind == Kind.BRAIN else rounded_rows(x, group) if kind >= Kind.INT8 else x
        expected = seen.astype(np.float64) @ numbers.astype(np.float64)
        size = np.abs(seen).astype(np.float64) @ np.abs(numbers).astype(np.float64)
        assert (np.abs(weight(x) - expected) <= 2e-6 * size + 1e-30).all()


@pytest.mark.parametrize(("kind", "group"), FORMS)
def test_a_row_gives_the_same_bits_in_any_company(library: CpuLibrary, kind: Kind, group: int) -> None:
    rng = np.random.default_rng(1)
    weight, _ = made(library, kind, 1100, 200, rng, group)
    x = rng.normal(size=(530, 1100)).astype(np.float32)
    whole = weight(x)
    for count in (1, 2, 3, 4, 5, 6, 7, 8, 9, 64):
        assert (weight(x[:count]) == whole[:count]).all()


@pytest.mark.parametrize("kind", list(Kind))
def test_threads_do_not_matter(kind: Kind) -> None:
    found = []
    for threads in (1, 3):
        weight, _ = made(CpuLibrary(threads), kind, 600, 300, np.random.default_rng(2))
        found.append(weight(np.random.default_rng(3).normal(size=(21, 600)).astype(np.float32)))
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize(("kind", "group"), FORMS)
def test_what_is_not_finite_stays_in_its_row(library: CpuLibrary, kind: Kind, group: int) -> None:
    rng = np.random.default_rng(4)
    weight, _ = made(library, kind, 64, 40, rng, group)
    x = rng.normal(size=(3, 64)).astype(np.float32)
    clean = weight(x)
    x[1, 5] = np.nan
    spoilt = weight(x)
    assert not np.isfinite(spoilt[1]).any()
    assert (spoilt[[0, 2]] == clean[[0, 2]]).all()


@pytest.mark.parametrize("kind", list(Kind))
def test_bias(library: CpuLibrary, kind: Kind) -> None:
    """It is added to the finished product, in float32."""
    rng = np.random.default_rng(5)
    plain, numbers = made(library, kind, 70, 37, rng)
    weight, bias = PackedWeight(library, kind, 70, 37, has_bias=True), rng.normal(size=37).astype(np.float32)
    if kind >= Kind.INT8:
        packed, scales, _ = blocks_of(70, 37, 8 if kind == Kind.INT8 else 4, 32, np.random.default_rng(6))
        plain.put_blocks(0, packed, scales)
        weight.put_blocks(0, packed, scales)
    else:
        plain.put(0, numbers)
        weight.put(0, numbers)
    weight.put_bias(0, bias[:30])
    weight.put_bias(30, bias[30:])
    for count in ROWS:
        x = rng.normal(size=(count, 70)).astype(np.float32)
        assert (weight(x) == plain(x) + bias).all()


def test_an_array_that_does_not_fit_is_refused(library: CpuLibrary) -> None:
    weight = PackedWeight(library, Kind.FLOAT, 3, 20)
    with pytest.raises(ValueError, match="does not fit a weight of 3 x 20, FLOAT"):
        weight(np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match="does not fit"):
        weight.put(0, np.ones((4, 20), np.float32))


def test_peak_is_a_rate(library: CpuLibrary) -> None:
    rates = [library.peak(kind, 0.02) for kind in ("float", "brain", "bytes")]
    assert all(1e9 < rate < 1e14 for rate in rates)
    with pytest.raises(ValueError, match="not in tuple"):
        library.peak("other")


def test_an_instruction_set_that_is_not_here_is_refused() -> None:
    with pytest.raises(RuntimeError, match="lacks its instructions"):
        CpuLibrary(1, "avx1024")
