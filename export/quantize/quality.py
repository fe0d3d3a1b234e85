"""What quantising cost, measured on cells, and what a check on another machine may therefore find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Backend
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.figures import Parity, Quality
from cellscribe.engine.bundle.load import REFERENCE
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import BundleError
from cellscribe.engine.measure import Expected, expected_of, real_cells, reference_batch, teacher_forced
from cellscribe.engine.verify import TOLERANCES, measure_parity

Progress = Callable[[str, float], None]

# Cells times bytes of the bundle that are measured: a minute or two on two cores, 4 cells of a 1.1 billion model.
_CELL_BYTES = 2e10
_MIN_CELLS, _MAX_CELLS = 4, 64
_NUM_TOKENS = 48
# Another backend rounds activations elsewhere: its errors are of the same size, but not the same errors.
MARGIN = 2.0
STEPS_MARGIN, STANDARD_ERRORS = 0.05, 3.0
WORST_COSINE = 0.9  # below it a model no longer does what it did


@dataclass(frozen=True)
class MeasuredCells:
    """Cells to measure on, and where they come from."""

    batch: TokenBatch
    source: str


def measured_cells(bundle: Bundle, cells: Path | None = None) -> MeasuredCells:
    """Tokenise some cells: the larger the bundle, the fewer.

    Without a file the packaged cells serve or, where these do not suit the bundle, those of its reference.

    Raises
    ------
    InputError
        When `cells` was given and cannot be used.
    """
    weights = sum(file.bytes for file in bundle.manifest.files.values())
    count = int(np.clip(_CELL_BYTES / weights, _MIN_CELLS, _MAX_CELLS))
    batch, source = real_cells(bundle, cells, count)
    if batch is not None:
        return MeasuredCells(batch, source)
    said = bundle.manifest.parity.source if bundle.manifest.parity else "reference cells"
    return MeasuredCells(reference_batch(bundle.tensors(REFERENCE)), said)


def measure_quality(original: Bundle, quantized: Bundle, cells: MeasuredCells, report: Progress) -> Quality:
    """Compare a quantised bundle with the fp32 one that it was made from, both with ONNX Runtime on the CPU.

    They are run one after the other, so that one is in memory at a time. `report` is called with what is done and the
    share of it.
    """
    name = "measuring fp32"
    report(name, 0.0)
    expected = expected_of(original, OnnxRuntimeCpu(original), cells.batch, _num_tokens(original))
    report(name, 1.0)
    name = f"measuring {quantized.manifest.precision}"
    report(name, 0.0)
    found = quality_against(expected, original, quantized, OnnxRuntimeCpu(quantized), cells.source)
    report(name, 1.0)
    return found


def quality_against(expected: Expected, original: Bundle, quantized: Bundle, backend: Backend, source: str) -> Quality:
    """Compare a bundle on a backend with what the fp32 bundle computed for the same cells."""
    encoded, real = backend.encode(expected.batch), expected.batch.mask
    cosine = cosines(expected.memory[real], encoded.host_memory()[real])
    found = Quality(
        cells=len(real),
        source=source,
        compared_with=original.hash,
        memory_min_cosine=float(cosine.min()),
        memory_mean_cosine=float(cosine.mean()),
        cell_max_error=float(np.abs(expected.cell - encoded.cell).max()),
    )
    if expected.tokens is None or expected.logits is None:
        return found
    logits = teacher_forced(quantized, backend, encoded.memory, real, expected.tokens)
    prompt = original.manifest.prompt
    counted = written(expected.tokens, prompt.eos_token_ids if prompt else ())
    return replace(
        found,
        tokens=int(counted.sum()),
        greedy_agreement=float((logits.argmax(-1) == expected.tokens)[counted].mean()),
        perplexity=_perplexity(logits, expected.tokens, counted),
        perplexity_fp32=_perplexity(expected.logits, expected.tokens, counted),
    )


def measured_parity(quantized: Bundle, backend: Backend, source: str, quality: Quality) -> Parity:
    """Compare a quantised bundle with torch, and set what a check of it may find: twice the errors found so far.

    The share of equal greedy steps may be lower by three standard errors, and by 5 points at least.

    Raises
    ------
    BundleError
        When it no longer does what the model did.
    """
    parity = measure_parity(quantized, backend, source, {"greedy_agreement": 0.0})
    if not parity.memory_min_cosine >= WORST_COSINE:
        raise BundleError(
            f"the quantised encoder of {quantized.name} does not do what the original does (cosine "
            f"{parity.memory_min_cosine:.3g}); export the bundle with --precision fp16."
        )
    return replace(parity, tolerance=_tolerance(parity, quality))


def _tolerance(parity: Parity, quality: Quality) -> dict[str, float]:
    floor, cosine = TOLERANCES["fp32"], min(parity.memory_min_cosine, quality.memory_min_cosine)
    worst = {
        "memory_max_error": parity.memory_max_error,
        "cell_max_error": max(parity.cell_max_error, quality.cell_max_error),
    }
    found = {name: max(MARGIN * error, floor[name]) for name, error in worst.items()}
    found["memory_min_cosine"] = min(1 - MARGIN * (1 - cosine), floor["memory_min_cosine"])
    if parity.logits_max_error is not None and parity.greedy_agreement is not None:
        share = parity.greedy_agreement
        spread = STANDARD_ERRORS * (share * (1 - share) / parity.tokens) ** 0.5
        found["logits_max_error"] = max(MARGIN * parity.logits_max_error, floor["logits_max_error"])
        found["greedy_agreement"] = max(0.0, share - max(STEPS_MARGIN, spread))
    return found


def _num_tokens(bundle: Bundle) -> int:
    shape, prompt = bundle.manifest.decoder, bundle.manifest.prompt
    room = shape.max_positions - len(prompt.token_ids) if shape and prompt else _NUM_TOKENS
    return min(_NUM_TOKENS, room)


def written(tokens: npt.NDArray[np.int64], eos_ids: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return which of the tokens [B, T] a text has: those up to the first that ends it."""
    ends = np.isin(tokens, eos_ids)
    return np.cumsum(ends, 1) - ends == 0


def _perplexity(
    logits: npt.NDArray[np.float32], tokens: npt.NDArray[np.int64], counted: npt.NDArray[np.bool_]
) -> float:
    wide = logits[counted].astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    chosen = np.take_along_axis(wide, tokens[counted][:, None], -1)[:, 0]
    return float(np.exp((np.log(np.exp(wide).sum(-1)) - chosen).mean()))


def cosines(theirs: npt.NDArray[np.generic], ours: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Return the cosine of each row [.., d] with its counterpart."""
    a, b = theirs.astype(np.float64), ours.astype(np.float64)
    found: npt.NDArray[np.float64] = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return found
