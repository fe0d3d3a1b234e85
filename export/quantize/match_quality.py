"""What quantising a bundle that reads ranks cost, measured on real cells, and what a check may find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.onnxruntime_match import OnnxRuntimeMatch
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.figures import MatchParity, MatchQuality
from cellscribe.engine.bundle.load import REFERENCE
from cellscribe.engine.bundle.manifest import Manifest
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import BundleError, InputError
from cellscribe.engine.matching.zero_shot import ZeroShot, label_scores
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.ranks import RankTokenizer
from cellscribe.engine.verify_match import TOLERANCES, measure_match_parity
from cellscribe.export.quantize.quality import MARGIN, WORST_COSINE, cosines

Progress = Callable[[str, float], None]

_CELLS = 16
# Names of cell types, whose texts are matched with every cell.
_LABELS = (
    "B cell", "plasma cell", "CD4-positive T cell", "CD8-positive T cell", "natural killer cell", "monocyte",
    "dendritic cell", "fibroblast",
)  # fmt: skip


@dataclass(frozen=True)
class MeasuredRanks:
    """Tokens of cells to measure on, and where they come from."""

    tokens: tuple[npt.NDArray[np.int64], ...]
    source: str


def measured_ranks(bundle: Bundle, cells: Path | None = None) -> MeasuredRanks:
    """Tokenise some cells, the packaged ones without a file, or the reference's where none of these genes is known.

    Raises
    ------
    InputError
        When `cells` was given and cannot be used.
    """
    path, spec = cells or packaged_cells(), bundle.manifest.ranks
    assert spec is not None
    try:
        with open_cells(path) as source:
            batch = next(RankTokenizer(spec, bundle.vocabulary, source).batches(np.arange(min(64, source.n_cells))))
        found = tuple(batch.cell(i) for i in range(min(_CELLS, len(batch.rows))))
        if found:
            return MeasuredRanks(found, path.name)
        why = f"none of the first cells of {path} can be tokenised; give other cells."
    except InputError as error:
        why = str(error)
    if cells is not None:
        raise InputError(why)
    reference = bundle.tensors(REFERENCE)
    rows = zip(reference["cell"].astype(np.int64), reference["cell_length"].astype(np.int64).tolist(), strict=True)
    return MeasuredRanks(tuple(row[:length] for row, length in rows), "reference cells")


def with_match_quality(original: Bundle, quantized: Bundle, cells: MeasuredRanks, report: Progress) -> Manifest:
    """Return the manifest with what quantising cost, and with what a check may find.

    Raises
    ------
    BundleError
        When the quantised bundle no longer does what the original did.
    """
    report("measuring fp32", 0.0)
    expected = _Answers.of(original, cells)
    report(f"measuring {quantized.manifest.precision}", 0.0)
    found = _Answers.of(quantized, cells)
    report(f"measuring {quantized.manifest.precision}", 1.0)
    cosine = cosines(expected.vectors, found.vectors)
    quality = MatchQuality(
        cells=len(cells.tokens),
        source=cells.source,
        compared_with=original.hash,
        vectors_min_cosine=float(cosine.min()),
        vectors_mean_cosine=float(cosine.mean()),
        vectors_max_error=float(np.abs(expected.vectors - found.vectors).max()),
    )
    if expected.match is not None and found.match is not None:
        same = [one == other for one, other in zip(expected.best, found.best, strict=True)]
        apart = float(np.abs(expected.match - found.match).max())
        quality = replace(quality, texts=len(_LABELS), match_max_error=apart, same_label=float(np.mean(same)))
    if not quality.vectors_min_cosine >= WORST_COSINE:
        raise BundleError(
            f"the quantised encoder of {quantized.name} does not do what the original does (cosine "
            f"{quality.vectors_min_cosine:.3g}); export the bundle with --precision fp16."
        )
    kept = original.manifest.match_parity
    parity = measure_match_parity(
        quantized, OnnxRuntimeMatch(quantized), kept.source if kept else "reference cells", TOLERANCES["fp32"]
    )
    return replace(quantized.manifest, match_quality=quality, match_parity=_tolerated(parity, quality))


def _tolerated(parity: MatchParity, quality: MatchQuality) -> MatchParity:
    """Let twice the errors found so far pass."""
    worst = {name: float(getattr(parity, name)) for name in parity.tolerance}
    worst["vectors_max_error"] = max(worst["vectors_max_error"], quality.vectors_max_error)
    if quality.match_max_error is not None:
        worst["match_max_error"] = max(worst["match_max_error"], quality.match_max_error)
    floor = TOLERANCES["fp32"]
    return replace(parity, tolerance={name: max(MARGIN * error, floor[name]) for name, error in worst.items()})


@dataclass(frozen=True, eq=False)
class _Answers:
    """Vectors [N, p]; with texts the probabilities [N, L] and the best label of each cell."""

    vectors: npt.NDArray[np.float32]
    match: npt.NDArray[np.float32] | None = None
    best: tuple[int, ...] = ()

    @classmethod
    def of(cls, bundle: Bundle, cells: MeasuredRanks) -> _Answers:
        """Run a bundle with ONNX Runtime on the CPU."""
        backend = OnnxRuntimeMatch(bundle)
        states = list(backend.encode_cells(cells.tokens, keeps_states=True))
        vectors = np.stack([one.vector for one in states])
        if backend.shape.text is None:
            return cls(vectors)
        encoded = bundle.tokenizer.encode_batch([f"cell type: {name}; " for name in _LABELS])
        texts = backend.encode_texts([np.array(one.ids, np.int64) for one in encoded])
        match = np.stack([backend.match(one, texts, np.arange(len(texts))) for one in states])

        def best(i: int) -> int:
            return label_scores(vectors[i], texts.vectors, lambda chosen: match[i][chosen], ZeroShot()).best

        return cls(vectors, match, tuple(best(i) for i in range(len(states))))
