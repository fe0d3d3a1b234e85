"""Cells through the native encoder against ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine.backends.cpu.encoder import CpuEncoder
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import InputError
from cellscribe.kernels.cpu_library import CpuLibrary, instruction_sets

pytestmark = pytest.mark.usefixtures("native_library")
SETS = instruction_sets() or ("none",)
BUNDLES = ["tiny_bundle", "tiny_bundle_fp16", "tiny_bundle_int8", "tiny_bundle_int4"]
LARGEST = {"fp32": 1e-5, "fp16": 2e-2, "int8": 0.2, "int4": 0.2}  # difference of a number of a LayerNorm
CELLS = 5


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    folder: Path = request.getfixturevalue(request.param)
    return open_bundle(folder)


@pytest.fixture(scope="module", params=SETS)
def encoder(request: pytest.FixtureRequest, bundle: Bundle) -> CpuEncoder:
    return CpuEncoder(bundle, CpuLibrary(2, request.param))


def random_batch(bundle: Bundle) -> TokenBatch:
    rng = np.random.default_rng(3)
    length = bundle.manifest.cells.num_genes + 1
    genes = rng.integers(0, len(bundle.vocabulary.tokens), (CELLS, length))
    values = np.where(rng.random((CELLS, length)) < 0.7, 0, rng.integers(1, 51, (CELLS, length))).astype(np.float32)
    mask = rng.random((CELLS, length)) < np.linspace(0.1, 1.0, CELLS)[:, None]
    mask[:, 0] = True
    return TokenBatch(np.arange(CELLS), tuple("abcde"), genes, values, mask, genes)


def part(batch: TokenBatch, rows: list[int]) -> TokenBatch:
    ids = tuple(batch.cell_ids[i] for i in rows)
    arrays = {name: getattr(batch, name)[rows] for name in ("rows", "genes", "values", "mask", "columns")}
    return TokenBatch(cell_ids=ids, **arrays)


def test_memory_is_that_of_onnx_runtime(encoder: CpuEncoder, bundle: Bundle) -> None:
    batch = random_batch(bundle)
    found, expected = encoder.encode(batch), OnnxRuntimeCpu(bundle, 2).encode(batch)
    assert found.memory.dtype == expected.memory.dtype
    assert found.memory.shape == expected.memory.shape
    ours, theirs = (one.memory[batch.mask].astype(np.float64) for one in (found, expected))
    assert np.abs(ours - theirs).max() < LARGEST[bundle.manifest.precision]
    cosine = (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    assert cosine.min() > 0.999
    assert found.cell.dtype == expected.cell.dtype
    assert (found.cell == found.memory[:, 0].astype(np.float32)).all()
    assert not found.memory[~batch.mask].any()


def test_a_cell_gives_the_same_bits_in_any_company(encoder: CpuEncoder, bundle: Bundle) -> None:
    batch = random_batch(bundle)
    values = batch.values.copy()
    values[1, 0] = np.nan
    found = encoder.encode(replace(batch, values=values))
    assert np.isnan(found.memory[1][batch.mask[1]]).all()
    for rows in ([4], [0, 3], [3, 1, 2], [2, 2]):
        assert np.array_equal(encoder.encode(part(batch, rows)).memory[0], encoder.encode(batch).memory[rows[0]])
    others = [0, 2, 3, 4]
    assert np.array_equal(found.memory[others], encoder.encode(batch).memory[others])


def test_no_cells_and_no_genes(encoder: CpuEncoder, bundle: Bundle) -> None:
    batch = random_batch(bundle)
    assert encoder.encode(part(batch, [])).memory.shape == (0, batch.genes.shape[1], bundle.manifest.encoder.d_model)
    empty = replace(batch, mask=np.zeros_like(batch.mask))
    assert not encoder.encode(empty).memory.any()


def test_an_unknown_gene_is_named(encoder: CpuEncoder, bundle: Bundle) -> None:
    batch = random_batch(bundle)
    genes = batch.genes.copy()
    genes[2, 0] = 10**6
    with pytest.raises(InputError, match="cell c has a gene"):
        encoder.encode(replace(batch, genes=genes))
