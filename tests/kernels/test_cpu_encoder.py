"""The native encoder against a float64 twin, on small and odd sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine.backends.cpu.encoder_weights import EncoderWeights
from cellscribe.engine.bundle.onnx_weights import OnnxWeights
from cellscribe.engine.bundle.shapes import EncoderShape
from cellscribe.kernels.cpu_encoder import CpuCell, NativeEncoder
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, instruction_sets, pointer

pytestmark = pytest.mark.usefixtures("native_library")
SETS = instruction_sets() or ("none",)
GENES, VALUES, EPS = 50, 9, 1e-5
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    d: int = 48
    heads: int = 3
    ffn: int = 80
    style: str = "continuous"
    length: int = 37
    kind: Kind = Kind.FLOAT
    attention: Kind = Kind.FLOAT
    layers: int = 2

    @property
    def sizes(self) -> EncoderShape:
        return EncoderShape(self.d, self.layers, self.heads, self.ffn)


CASES = [
    Case(),
    Case(d=30, heads=2, ffn=17, style="category"),  # heads of 15, rows that end within a lane
    Case(d=64, heads=1, ffn=64, style="scaling", length=1),
    Case(d=72, heads=6, ffn=33, length=16),
    Case(d=64, heads=4, ffn=128, length=210),
    Case(d=512, heads=2, ffn=96, length=50, layers=1),
    Case(kind=Kind.HALF),
    Case(d=30, heads=2, ffn=17, attention=Kind.BRAIN),
    Case(d=40, heads=4, ffn=70, kind=Kind.INT8, length=203),
    Case(d=64, heads=2, ffn=96, kind=Kind.INT4, attention=Kind.BRAIN, length=70),
    Case(d=30, heads=2, ffn=45, kind=Kind.INT8, attention=Kind.BRAIN, style="category"),
]


def linear_parts(name: str, k: int, n: int, kind: Kind, rng: np.random.Generator) -> tuple[Arrays, Arrays]:
    """Tensors as a bundle stores them, and the numbers that they stand for."""
    weight, bias = rng.normal(0, k**-0.5, (k, n)), rng.normal(0, 0.1, n).astype(np.float32)
    if kind < Kind.INT8:
        stored = weight.astype(np.float16 if kind == Kind.HALF else np.float32)
        parts = {f"{name}.weight": stored, f"{name}.bias": bias}
        return parts, parts
    zero, blocks = (128 if kind == Kind.INT8 else 8), -(-k // 32)
    padded = np.pad(weight.T, ((0, 0), (0, blocks * 32 - k))).reshape(n, blocks, 32)
    scales = (np.abs(padded).max(-1) / (zero - 1)).astype(np.float16).astype(np.float32)
    codes = (np.rint(padded / scales[..., None]) + zero).astype(np.uint8)
    numbers = ((codes - float(zero)) * scales[..., None]).reshape(n, -1)[:, :k].T
    packed = codes if kind == Kind.INT8 else codes[..., ::2] | codes[..., 1::2] << 4
    stored_parts = {f"{name}.weight.packed": packed, f"{name}.weight.scales": scales, f"{name}.bias": bias}
    return stored_parts, {f"{name}.weight": numbers, f"{name}.bias": bias}


def random_weights(case: Case) -> tuple[OnnxWeights, Arrays]:
    rng = np.random.default_rng(case.d + case.length)
    stored: Arrays = {}
    numbers: Arrays = {}

    def norm(name: str) -> None:
        for part, shift in (("weight", 1.0), ("bias", 0.0)):
            stored[f"{name}.{part}"] = numbers[f"{name}.{part}"] = rng.normal(shift, 0.2, case.d).astype(np.float32)

    def linear(name: str, k: int, n: int, kind: Kind) -> None:
        for all_of, some in zip((stored, numbers), linear_parts(name, k, n, kind, rng), strict=True):
            all_of.update(some)

    def table(name: str, count: int) -> None:
        dtype = np.float32 if case.kind == Kind.FLOAT else np.float16
        stored[f"{name}.embedding.weight"] = rng.normal(size=(count, case.d)).astype(dtype)
        numbers[f"{name}.embedding.weight"] = stored[f"{name}.embedding.weight"]
        norm(f"{name}.norm")

    table("encoder.genes", GENES)
    if case.style == "category":
        table("encoder.values", VALUES)
    elif case.style == "continuous":
        linear("encoder.values.linear1", 1, case.d, Kind.FLOAT)
        linear("encoder.values.linear2", case.d, case.d, case.kind)
        norm("encoder.values.norm")
    for at in (f"encoder.layers.{i}" for i in range(case.layers)):
        for name, k, n in (("qkv", 1, 3), ("out", 1, 1)):
            linear(f"{at}.{name}", k * case.d, n * case.d, case.kind)
        linear(f"{at}.linear1", case.d, case.ffn, case.kind)
        linear(f"{at}.linear2", case.ffn, case.d, case.kind)
        norm(f"{at}.norm1")
        norm(f"{at}.norm2")
    epsilons = {name: EPS for name in stored if name.endswith(".weight") and ".norm" in name}
    return OnnxWeights(Path("encoder.onnx"), stored, epsilons), {k: v.astype(np.float64) for k, v in numbers.items()}


def expected_memory(case: Case, w: Arrays, genes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The encoder in float64: genes int64 [S] and values [S] -> [S, d]."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        apart = x - x.mean(-1, keepdims=True)
        return apart / np.sqrt((apart**2).mean(-1, keepdims=True) + EPS) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    x = norm(w["encoder.genes.embedding.weight"][genes], "encoder.genes.norm")
    if case.style == "category":
        x = x + norm(w["encoder.values.embedding.weight"][values.astype(int)], "encoder.values.norm")
    elif case.style == "continuous":
        hidden = np.maximum(linear(np.minimum(values, 512.0)[:, None], "encoder.values.linear1"), 0)
        x = x + norm(linear(hidden, "encoder.values.linear2"), "encoder.values.norm")
    else:
        x = x * values[:, None]
    for at in (f"encoder.layers.{i}" for i in range(case.layers)):
        q, k, v = linear(x, f"{at}.qkv").reshape(len(x), 3, case.heads, -1).transpose(1, 2, 0, 3)  # [H, S, D]
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (powers / powers.sum(-1, keepdims=True)) @ v
        x = norm(x + linear(mixed.transpose(1, 0, 2).reshape(x.shape), f"{at}.out"), f"{at}.norm1")
        hidden = np.maximum(linear(x, f"{at}.linear1"), 0)
        x = norm(x + linear(hidden, f"{at}.linear2"), f"{at}.norm2")
    return x


def random_cell(case: Case) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(case.length)
    values = rng.integers(0, VALUES, case.length).astype(np.float32)
    if case.style != "category":
        values = values * np.float32(0.37)
        values[0] = 700.0 if case.style == "continuous" else 1.0  # clipped
    return rng.integers(0, GENES, case.length), values


def given(case: Case, genes: np.ndarray, values: np.ndarray, memory: np.ndarray) -> tuple[CpuCell, list[np.ndarray]]:
    """Return a cell for every second row of a memory, and the arrays that it lies in."""
    distinct, codes = np.unique(values, return_inverse=True) if case.style == "continuous" else (values, values)
    codes = codes.astype(np.int64) if np.isfinite(codes).all() else np.zeros(len(codes), np.int64)
    arrays = [np.ascontiguousarray(one) for one in (genes, codes, distinct, np.arange(len(genes)) * 2)]
    pointers = [pointer(one) for one in (*arrays, memory)]
    return CpuCell(len(genes), len(distinct), *pointers, memory.dtype == np.float16), arrays


def encode(
    native: NativeEncoder, case: Case, genes: np.ndarray, values: np.ndarray, dtype: type = np.float32
) -> np.ndarray:
    """Encode into every second row of a memory that held sevens."""
    memory = np.full((2 * len(genes), case.d), 7, dtype)
    cell, _arrays = given(case, genes, values, memory)
    native.run([cell])
    assert (memory[1::2] == 7).all()
    return memory[::2]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_cells_of_one_call_are_those_of_many(threads: int) -> None:
    case = CASES[0]
    library = CpuLibrary(threads)
    weights = EncoderWeights(random_weights(case)[0], library, case.sizes, case.style, case.attention)
    native, rng = NativeEncoder(library, weights.shape), np.random.default_rng(5)
    lengths = [case.length, 1, *rng.integers(1, case.length + 1, 21).tolist()]  # more than four for each thread
    cells = [(rng.integers(0, GENES, n), rng.integers(0, 4, n).astype(np.float32)) for n in lengths]
    alone = [encode(native, case, *one) for one in cells]
    for _ in range(3):
        memories = [np.full((2 * n, case.d), 7, np.float32) for n in lengths]
        made = [given(case, *one, memory) for one, memory in zip(cells, memories, strict=True)]
        native.run([cell for cell, _ in made])
        for memory, expected in zip(memories, alone, strict=True):
            assert (memory[::2] == expected).all()
            assert (memory[1::2] == 7).all()


@pytest.fixture(scope="module", params=SETS)
def library(request: pytest.FixtureRequest) -> CpuLibrary:
    return CpuLibrary(2, request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory(library: CpuLibrary, case: Case) -> None:
    source, numbers = random_weights(case)
    weights = EncoderWeights(source, library, case.sizes, case.style, case.attention)
    native = NativeEncoder(library, weights.shape)
    genes, values = random_cell(case)
    found, expected = encode(native, case, genes, values), expected_memory(case, numbers, genes, values)
    if case.kind <= Kind.HALF and case.attention == Kind.FLOAT:
        assert np.abs(found - expected).max() < 2e-5
    cosine = (found * expected).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert cosine.min() > 0.999
    halves = encode(native, case, genes, values, np.float16)
    assert (halves == found.astype(np.float16)).all()


@pytest.mark.parametrize("kind", [Kind.FLOAT, Kind.INT8])
def test_a_cell_gives_the_same_bits_after_any_other(library: CpuLibrary, kind: Kind) -> None:
    case = Case(
        d=64, heads=2, ffn=96, length=150, kind=kind, attention=Kind.FLOAT if kind == Kind.FLOAT else Kind.BRAIN
    )
    source, _ = random_weights(case)
    weights = EncoderWeights(source, library, case.sizes, case.style, case.attention)
    native = NativeEncoder(library, weights.shape)
    genes, values = random_cell(case)
    found = encode(native, case, genes, values)
    longer = random_cell(replace(case, length=333))
    assert np.isnan(encode(native, case, longer[0], np.where(np.arange(333) == 200, np.nan, longer[1]))).all()
    assert (encode(native, case, genes, values) == found).all()
    for threads in (1, 3):
        other = CpuLibrary(threads, library.instruction_set)
        packed = EncoderWeights(source, other, case.sizes, case.style, case.attention)
        assert (encode(NativeEncoder(other, packed.shape), case, genes, values) == found).all()


def test_values_far_apart_do_not_overflow(library: CpuLibrary) -> None:
    case = Case(style="scaling", length=40)
    source, numbers = random_weights(case)
    weights = EncoderWeights(source, library, case.sizes, case.style, case.attention)
    genes, values = random_cell(case)
    values[3] = 1e4  # scores of millions: all but one power is zero
    found = encode(NativeEncoder(library, weights.shape), case, genes, values)
    assert np.isfinite(found).all()
    assert np.abs(found - expected_memory(case, numbers, genes, values)).max() < 5e-3
