"""What quantising a bundle that follows instructions cost, measured on real cells, and what a check may find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.instruct import EncoderPrompt, ExpressedCell, instruct_shapes
from cellscribe.engine.backends.onnxruntime_instruct import OnnxRuntimeInstruct
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.figures import InstructParity, InstructQuality
from cellscribe.engine.bundle.load import REFERENCE
from cellscribe.engine.bundle.manifest import Manifest
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import BundleError, InputError
from cellscribe.engine.instruct.cells import InstructCells
from cellscribe.engine.instruct.prompts import PromptEncoder, framed
from cellscribe.engine.instruct.templates import ANNOTATION, packaged_instructions
from cellscribe.engine.measure_text import Followed, go_on
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.types import Sampling
from cellscribe.engine.verify_instruct import TOLERANCES, measure_instruct_parity, rates_error, reference_cells
from cellscribe.export.quantize.quality import MARGIN, STANDARD_ERRORS, STEPS_MARGIN, WORST_COSINE, cosines, written

Progress = Callable[[str, float], None]

_CELLS, _NUM_TOKENS = 16, 24


@dataclass(frozen=True)
class MeasuredPrompts:
    """Cells to measure on, the prompt about each (without features), and where they come from."""

    cells: tuple[ExpressedCell, ...]
    prompts: tuple[EncoderPrompt, ...]
    source: str


def measured_instructions(bundle: Bundle, cells: Path | None = None) -> MeasuredPrompts:
    """Read some cells, the packaged ones without a file, or the reference's where none of these genes is known.

    Raises
    ------
    InputError
        When `cells` was given and cannot be used.
    """
    shapes, path = instruct_shapes(bundle), cells or packaged_cells()
    found: tuple[ExpressedCell, ...] = ()
    said = ""
    try:
        with open_cells(path) as source:
            rows = np.arange(min(64, source.n_cells))
            batch = next(InstructCells(source, bundle.vocabulary.input_genes or ()).batches(rows))
        found, said = batch.cells[:_CELLS], path.name
        why = f"none of the first cells of {path} expresses a gene of the model; give other cells."
    except InputError as error:
        why = str(error)
    if not found:
        if cells is not None:
            raise InputError(why)
        found, said = tuple(reference_cells(bundle.tensors(REFERENCE))), "reference cells"
    encoder = PromptEncoder(bundle.tokenizer, shapes.spec, shapes.tower.n_queries)
    ways = packaged_instructions()[ANNOTATION]
    known = {"species": "human", "tissue": "blood", "sequencing_method": "10x"}
    texts = [framed(ways.choose(i % len(ways.prompts), known), encoder.cell) for i in range(len(found))]
    return MeasuredPrompts(found, tuple(encoder.encode(one, has_cell=True) for one in texts), said)


def with_instruct_quality(original: Bundle, quantized: Bundle, cells: MeasuredPrompts, report: Progress) -> Manifest:
    """Return the manifest with what quantising cost, and with what a check may find.

    Raises
    ------
    BundleError
        When the quantised bundle no longer does what the original did.
    """
    report("measuring fp32", 0.0)
    features, expected = _run(OnnxRuntimeInstruct(original), cells, None)
    report(f"measuring {quantized.manifest.precision}", 0.0)
    backend = OnnxRuntimeInstruct(quantized)
    moved, found = _run(backend, cells, expected)
    report(f"measuring {quantized.manifest.precision}", 1.0)
    cosine = cosines(features, moved)
    counted = written(expected.tokens, instruct_shapes(original).spec.eos_token_ids)
    quality = InstructQuality(
        cells=len(cells.cells),
        source=cells.source,
        compared_with=original.hash,
        features_min_cosine=float(cosine.min()),
        features_mean_cosine=float(cosine.mean()),
        tokens=int(counted.sum()),
        greedy_agreement=float((found.best == expected.tokens)[counted].mean()),
        perplexity=float(np.exp(-found.logprobs[counted].mean())),
        perplexity_fp32=float(np.exp(-expected.logprobs[counted].mean())),
        rates_max_error=rates_error(original.tensors(REFERENCE), backend),
    )
    if not quality.features_min_cosine >= WORST_COSINE:
        raise BundleError(
            f"the quantised tower of {quantized.name} does not do what the original does (cosine "
            f"{quality.features_min_cosine:.3g}); choose int8, or export the bundle with --precision fp16."
        )
    kept = original.manifest.instruct_parity
    said = kept.source if kept else "reference cells"
    parity = measure_instruct_parity(quantized, backend, said, {**TOLERANCES["fp32"], "greedy_agreement": 0.0})
    parity = replace(parity, tolerance=_tolerance(parity, quality))
    return replace(quantized.manifest, instruct_quality=quality, instruct_parity=parity)


def _run(
    backend: OnnxRuntimeInstruct, cells: MeasuredPrompts, along: Followed | None
) -> tuple[npt.NDArray[np.float32], Followed]:
    """Read the cells and answer the prompts, along the tokens of another run if there is one."""
    features = np.stack(list(backend.read_cells(cells.cells)))
    prompts = [replace(one, features=mine) for one, mine in zip(cells.prompts, features, strict=True)]
    memories = backend.encode_prompts(prompts)
    count, start = len(memories), np.array([backend.shapes.spec.start_id], np.int64)
    longest = max(map(len, memories))
    plan = TextPlan(count, 1, _NUM_TOKENS, Sampling(), forced=True, longest_memory=longest)
    slots = backend.open_instruct_slots(plan)
    slots.admit([Prompted(i, i, start, memory=one) for i, one in enumerate(memories)]).wait()
    return features, go_on(slots, count, _NUM_TOKENS, None if along is None else along.tokens)


def _tolerance(parity: InstructParity, quality: InstructQuality) -> dict[str, float]:
    """Return twice the errors found so far; a few more steps than were found to differ may differ."""
    floor, share = TOLERANCES["fp32"], min(parity.greedy_agreement or 0.0, quality.greedy_agreement)
    spread = STANDARD_ERRORS * (share * (1 - share) / parity.tokens) ** 0.5
    found = {
        name: max(MARGIN * float(getattr(parity, name)), limit)
        for name, limit in floor.items()
        if getattr(parity, name) is not None
    }
    return {**found, "greedy_agreement": max(0.0, share - max(STEPS_MARGIN, spread))}
