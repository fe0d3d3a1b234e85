"""What quantising a bundle without an encoder cost, measured on prompts about cells, and what a check may find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.backends.text import TextBackend
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.figures import TextParity, TextQuality
from cellscribe.engine.bundle.manifest import Manifest
from cellscribe.engine.errors import BundleError
from cellscribe.engine.measure_text import Followed, Prompts, follow, real_prompts
from cellscribe.engine.verify_text import TOLERANCES, measure_text_parity
from cellscribe.export.quantize.quality import MARGIN, STANDARD_ERRORS, STEPS_MARGIN, WORST_COSINE, cosines, written

Progress = Callable[[str, float], None]

# Prompts times bytes of the bundle that are measured: a minute or two on two cores, 6 prompts of a 400 million model.
_PROMPT_BYTES = 1e10
_MIN_PROMPTS, _MAX_PROMPTS = 4, 16
_NUM_TOKENS = 48


def measured_prompts(bundle: Bundle, cells: Path | None = None) -> Prompts:
    """Write prompts about some cells, the packaged ones without a file: the larger the bundle, the fewer.

    Raises
    ------
    InputError
        When the cells cannot be used.
    """
    weights = sum(file.bytes for file in bundle.manifest.files.values())
    count = int(np.clip(_PROMPT_BYTES / weights, _MIN_PROMPTS, _MAX_PROMPTS))
    return real_prompts(bundle, cells, count, _num_tokens(bundle))


def with_text_quality(original: Bundle, quantized: Bundle, prompts: Prompts, report: Progress) -> Manifest:
    """Return the manifest with what quantising cost, and with what a check may find.

    Raises
    ------
    BundleError
        When the quantised bundle no longer does what the original did.
    """
    quality = measure_text_quality(original, quantized, prompts, report)
    kept = original.manifest.text_parity
    parity = measure_text_parity(
        quantized, OnnxRuntimeText(quantized), kept.source if kept else "reference prompts", {"greedy_agreement": 0.0}
    )
    if not quality.embedding_min_cosine >= WORST_COSINE:
        raise BundleError(
            f"the quantised decoder of {quantized.name} does not do what the original does (cosine "
            f"{quality.embedding_min_cosine:.3g}); choose int8, or export the bundle with --precision fp16."
        )
    parity = replace(parity, tolerance=_tolerance(parity, quality))
    return replace(quantized.manifest, text_quality=quality, text_parity=parity)


def measure_text_quality(original: Bundle, quantized: Bundle, prompts: Prompts, report: Progress) -> TextQuality:
    """Compare a quantised bundle with the fp32 one that it was made from, both with ONNX Runtime on the CPU.

    They are run one after the other, so that one is in memory at a time.
    """
    name = "measuring fp32"
    report(name, 0.0)
    expected, states = _run(OnnxRuntimeText(original), prompts, _num_tokens(original), None)
    report(name, 1.0)
    name = f"measuring {quantized.manifest.precision}"
    report(name, 0.0)
    found, moved = _run(OnnxRuntimeText(quantized), prompts, _num_tokens(original), expected)
    report(name, 1.0)
    sentences = original.manifest.sentences
    counted, cosine = written(expected.tokens, sentences.eos_token_ids if sentences else ()), cosines(states, moved)
    return TextQuality(
        prompts=len(prompts.tokens),
        source=prompts.source,
        compared_with=original.hash,
        embedding_min_cosine=float(cosine.min()),
        embedding_mean_cosine=float(cosine.mean()),
        embedding_max_error=float(np.abs(states - moved).max()),
        tokens=int(counted.sum()),
        greedy_agreement=float((found.best == expected.tokens)[counted].mean()),
        perplexity=float(np.exp(-found.logprobs[counted].mean())),
        perplexity_fp32=float(np.exp(-expected.logprobs[counted].mean())),
    )


def _run(
    backend: TextBackend, prompts: Prompts, num_tokens: int, along: Followed | None
) -> tuple[Followed, npt.NDArray[np.float32]]:
    """Go on with the prompts, along the tokens of another run if there is one, and embed them."""
    found = follow(backend, prompts.tokens, num_tokens, None if along is None else along.tokens)
    return found, backend.embed_prompts(prompts.tokens)


def _tolerance(parity: TextParity, quality: TextQuality) -> dict[str, float]:
    """Return twice the errors found so far; a few more steps than were found to differ may differ."""
    floor, share = TOLERANCES["fp32"], min(parity.greedy_agreement or 0.0, quality.greedy_agreement)
    spread = STANDARD_ERRORS * (share * (1 - share) / parity.tokens) ** 0.5
    worst = max(parity.embedding_max_error, quality.embedding_max_error)
    return {
        "logits_max_error": max(MARGIN * parity.logits_max_error, floor["logits_max_error"]),
        "embedding_max_error": max(MARGIN * worst, floor["embedding_max_error"]),
        "greedy_agreement": max(0.0, share - max(STEPS_MARGIN, spread)),
    }


def _num_tokens(bundle: Bundle) -> int:
    """Return how many tokens are written after a prompt: fewer where the context is short."""
    shape = bundle.manifest.decoder
    return min(_NUM_TOKENS, shape.max_positions // 4) if shape else _NUM_TOKENS
