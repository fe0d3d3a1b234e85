"""Checking that a bundle without an encoder does what the torch model did when it was exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.choose import choose_text_backend
from cellscribe.engine.backends.text import Prompted, TextBackend, TextPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.figures import TextParity
from cellscribe.engine.bundle.load import REFERENCE
from cellscribe.engine.errors import BundleError
from cellscribe.engine.types import Sampling

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_AGREEMENT = "greedy_agreement"
# float32 leaves room for sums in another order. The float16 limit of the logits is that of the golden C2S values.
TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"logits_max_error": 2e-3, "embedding_max_error": 5e-4},
    "fp16": {"logits_max_error": 0.15, "embedding_max_error": 0.05},
}


@dataclass(frozen=True)
class TextVerifyReport:
    """The outcome of a check: `failures` are sentences, none when all is well."""

    bundle: str
    device: str
    parity: TextParity
    failures: tuple[str, ...]
    timings: tuple[()] = ()
    facts: tuple[()] = ()

    @property
    def passed(self) -> bool:
        """Whether every figure is within its tolerance."""
        return not self.failures

    def lines(self) -> list[str]:
        """Say it in lines for a terminal."""
        p = self.parity
        agreement = (
            "no greedy step is clear enough to compare"
            if p.greedy_agreement is None
            else f"the same token at {p.greedy_agreement:.1%} of {p.tokens} greedy steps"
        )
        return [
            f"{self.bundle} on {self.device}",
            f"{p.prompts} prompts ({p.source}): logits differ by at most {p.logits_max_error:.2g}, embeddings by "
            f"{p.embedding_max_error:.2g}; {agreement} ({p.near_ties} near-ties left out)",
            f"tolerance: {_limits(p.tolerance)}",
            *self.failures,
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for a report that can be sent."""
        return {**asdict(self), "passed": self.passed}


def _limits(tolerance: Mapping[str, float]) -> str:
    """Say what passes."""
    said = (
        f"logits within {tolerance['logits_max_error']:.2g}, embeddings within {tolerance['embedding_max_error']:.2g}"
    )
    share = tolerance.get(_AGREEMENT)
    if share is None:
        return f"{said}, the same token at every greedy step that is no near-tie"
    return f"{said}, the same token at {share:.1%} of greedy steps at least"


def verify_text_bundle(
    bundle: Bundle, backend: str = "auto", threads: int | None = None, plans: Path | None = None
) -> TextVerifyReport:
    """Run the bundle's reference prompts and compare with what torch computed at export; errors as `verify_bundle`."""
    opened = choose_text_backend(bundle, backend, threads, plans=plans)
    kept = bundle.manifest.text_parity
    parity = measure_text_parity(bundle, opened, kept.source if kept else "reference prompts")
    return TextVerifyReport(bundle.name, opened.device, parity, text_failures(parity))


def measure_text_parity(
    bundle: Bundle, backend: TextBackend, source: str, tolerance: Mapping[str, float] | None = None
) -> TextParity:
    """Compare a backend with reference.safetensors.

    Parameters
    ----------
    tolerance
        What passes; None takes that of the bundle's precision. With an entry `greedy_agreement` near-ties count, too.

    Raises
    ------
    BundleError
        When the bundle carries no reference.
    """
    reference = bundle.tensors(REFERENCE)
    prompts = [
        row[:length].astype(np.int64) for row, length in zip(reference["prompt"], reference["length"], strict=True)
    ]
    tokens, theirs = reference["tokens"].astype(np.int64), reference["logits"].astype(np.float32)
    limits = dict(tolerance or text_tolerance(bundle))
    ours = forced_logits(backend, prompts, tokens)
    embedded = backend.embed_prompts(prompts)
    best = np.partition(theirs, -2, axis=-1)[..., -2:]
    clear = best[..., 1] - best[..., 0] > (-1.0 if _AGREEMENT in limits else 2 * limits["logits_max_error"])
    same = theirs.argmax(-1) == ours.argmax(-1)
    figures: dict[str, Any] = {
        "logits_max_error": float(np.abs(theirs - ours).max()),
        "embedding_max_error": float(np.abs(reference["embedding"].astype(np.float32) - embedded).max()),
        "greedy_agreement": float(same[clear].mean()) if clear.any() else None,
        "tokens": int(clear.size),
        "near_ties": int((~clear).sum()),
    }
    return TextParity(len(prompts), source, **figures, tolerance=limits)


def text_tolerance(bundle: Bundle) -> Mapping[str, float]:
    """Return the largest differences that pass for a bundle; BundleError where a quantised one does not say."""
    if not bundle.manifest.is_quantized:
        return TOLERANCES[bundle.manifest.precision]
    parity = bundle.manifest.text_parity
    if parity is None or not parity.tolerance:
        raise BundleError(f"the bundle {bundle.name} does not say how exact it is; quantise it anew.")
    return parity.tolerance


def forced_logits(backend: TextBackend, prompts: Sequence[Ints], tokens: Ints) -> Floats:
    """Return the logits [R, T, V] before each of the given tokens [R, T], run the way texts are written."""
    count, length = tokens.shape
    slots = backend.open_text_slots(TextPlan(count, max(map(len, prompts)), length, Sampling(), forced=True))
    slots.admit([Prompted(i, i, prompt) for i, prompt in enumerate(prompts)]).wait()
    seen = [slots.logits(count).copy()]
    for t in range(length - 1):
        slots.force(tokens[:, t])
        slots.step(np.arange(count)).wait()
        seen.append(slots.logits(count).copy())
    return np.stack(seen, 1)


def text_failures(parity: TextParity, whom: str = "torch") -> tuple[str, ...]:
    """Return one sentence for every figure outside its tolerance; `whom` it was compared with."""
    found = []
    for name, limit in parity.tolerance.items():
        value = getattr(parity, name)
        if value is not None and not (value >= limit if name == _AGREEMENT else value <= limit):
            found.append(f"{name} is {value:.7g}, beyond the tolerance {limit:g}.")
    if _AGREEMENT not in parity.tolerance and parity.greedy_agreement is not None and parity.greedy_agreement < 1.0:
        found.append(f"only {parity.greedy_agreement:.1%} of the clear greedy steps choose the same token as {whom}.")
    return tuple(found)


def require_text_parity(parity: TextParity, name: str) -> None:
    """Raise BundleError when a bundle is not what torch computed."""
    failures = text_failures(parity)
    if failures:
        raise BundleError(f"the bundle {name} does not reproduce the torch model: {' '.join(failures)}")
