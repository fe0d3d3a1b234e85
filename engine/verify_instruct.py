"""Checking that a bundle that follows instructions does what the torch model did when it was exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Memory, host_array
from cellscribe.engine.backends.choose import choose_backend
from cellscribe.engine.backends.instruct import EncoderPrompt, ExpressedCell, InstructBackend, instruct_shapes
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.figures import InstructParity
from cellscribe.engine.bundle.load import REFERENCE
from cellscribe.engine.errors import BundleError
from cellscribe.engine.types import Sampling

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Reference = Mapping[str, npt.NDArray[np.generic]]

_AGREEMENT = "greedy_agreement"
# float32 leaves room for sums in another order; float16 is as recommended for the golden InstructCell values.
TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {
        "features_max_error": 2e-4,
        "states_max_error": 5e-4,
        "logits_max_error": 2e-3,
        "rates_max_error": 1e-3,
    },
    "fp16": {
        "features_max_error": 5e-2,
        "states_max_error": 0.1,
        "logits_max_error": 0.25,
        "rates_max_error": 5e-2,
    },
}


@dataclass(frozen=True)
class InstructVerifyReport:
    """The outcome of a check: `failures` are sentences, none when all is well."""

    bundle: str
    device: str
    parity: InstructParity
    failures: tuple[str, ...]
    timings: tuple[()] = ()
    facts: tuple[()] = ()

    @property
    def passed(self) -> bool:
        """Whether every figure is within its tolerance."""
        return not self.failures

    def lines(self) -> list[str]:
        """Say it in lines for a terminal."""
        return [f"{self.bundle} on {self.device}", *instruct_parity_lines(self.parity), *self.failures]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for a report that can be sent."""
        return {**asdict(self), "passed": self.passed}


def instruct_parity_lines(parity: InstructParity) -> list[str]:
    """Say how far a bundle is from torch."""
    p = parity
    agreement = (
        "no greedy step is clear enough to compare"
        if p.greedy_agreement is None
        else f"the same token at {p.greedy_agreement:.1%} of {p.tokens} greedy steps"
    )
    lines = [
        f"{p.cells} cells ({p.source}): features differ by at most {p.features_max_error:.2g}",
        f"{p.prompts} prompts: states differ by at most {p.states_max_error:.2g}, logits by {p.logits_max_error:.2g}; "
        f"{agreement} ({p.near_ties} near-ties left out)",
    ]
    if p.rates_max_error is not None:
        lines.append(f"profiles: rates differ by at most {p.rates_max_error:.2g} of each cell's largest")
    return lines


def verify_instruct_bundle(
    bundle: Bundle, backend: str = "auto", threads: int | None = None, plans: Path | None = None
) -> InstructVerifyReport:
    """Run the reference cells and prompts of an opened bundle and compare with what torch computed at export.

    Parameters
    ----------
    backend, threads, plans
        As for :class:`cellscribe.engine.instruct_model.InstructModel`.

    Raises
    ------
    BundleError
        When the bundle is damaged or carries no reference.
    BackendError
        When the backend cannot run here.
    """
    opened = cast(InstructBackend, choose_backend(bundle, backend, threads=threads, plans=plans).backend)
    kept = bundle.manifest.instruct_parity
    parity = measure_instruct_parity(bundle, opened, kept.source if kept else "reference cells")
    return InstructVerifyReport(bundle.name, opened.device, parity, instruct_failures(parity))


def measure_instruct_parity(
    bundle: Bundle, backend: InstructBackend, source: str, tolerance: Mapping[str, float] | None = None
) -> InstructParity:
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
    reference, limits = bundle.tensors(REFERENCE), dict(tolerance or instruct_tolerance(bundle))
    features = list(backend.read_cells(reference_cells(reference)))
    memories = backend.encode_prompts(reference_prompts(reference, features))
    states = reference["states"].astype(np.float32)
    apart = [
        float(np.abs(host_array(one).astype(np.float32) - theirs[: len(one)]).max())
        for one, theirs in zip(memories, states, strict=True)
    ]
    tokens, theirs = reference["tokens"].astype(np.int64), reference["logits"].astype(np.float32)
    ours = forced_logits(backend, memories, tokens)
    best = np.partition(theirs, -2, axis=-1)[..., -2:]
    clear = best[..., 1] - best[..., 0] > (-1.0 if _AGREEMENT in limits else 2 * limits["logits_max_error"])
    same = theirs.argmax(-1) == ours.argmax(-1)
    figures: dict[str, Any] = {
        "features_max_error": float(np.abs(np.stack(features) - reference["features"].astype(np.float32)).max()),
        "states_max_error": max(apart),
        "logits_max_error": float(np.abs(theirs - ours).max()),
        _AGREEMENT: float(same[clear].mean()) if clear.any() else None,
        "tokens": int(clear.size),
        "near_ties": int((~clear).sum()),
        "rates_max_error": rates_error(reference, backend),
    }
    limits = {name: limit for name, limit in limits.items() if figures.get(name) is not None}
    return InstructParity(len(features), len(memories), source, **figures, tolerance=limits)


def reference_cells(reference: Reference) -> list[ExpressedCell]:
    """Return the cells of a reference."""
    counts = reference["num_genes"].astype(np.int64).tolist()
    rows = zip(reference["genes"].astype(np.int64), reference["values"].astype(np.float32), counts, strict=True)
    return [ExpressedCell(genes[:n].copy(), values[:n].copy()) for genes, values, n in rows]


def reference_prompts(reference: Reference, features: Sequence[Any]) -> list[EncoderPrompt]:
    """Return the prompts of a reference, with the features of their cells."""
    found = []
    for row, length, start, cell in zip(
        reference["prompt"].astype(np.int64),
        reference["prompt_length"].astype(np.int64).tolist(),
        reference["prompt_start"].astype(np.int64).tolist(),
        reference["prompt_cell"].astype(np.int64).tolist(),
        strict=True,
    ):
        found.append(EncoderPrompt(row[:length].copy(), start, features[cell] if cell >= 0 else None))
    return found


def forced_logits(backend: InstructBackend, memories: Sequence[Memory], tokens: Ints) -> Floats:
    """Return the logits [R, T, V] before each of the given tokens [R, T], run the way texts are written."""
    count, length = tokens.shape
    start = np.array([instruct_shapes(backend.bundle).spec.start_id], np.int64)
    longest = max(len(one) for one in memories)
    slots = backend.open_instruct_slots(TextPlan(count, 1, length, Sampling(), forced=True, longest_memory=longest))
    slots.admit([Prompted(i, i, start, memory=one) for i, one in enumerate(memories)]).wait()
    seen = [slots.logits(count).copy()]
    for t in range(length - 1):
        slots.force(tokens[:, t])
        slots.step(np.arange(count)).wait()
        seen.append(slots.logits(count).copy())
    return np.stack(seen, 1)


def rates_error(reference: Reference, backend: InstructBackend) -> float | None:
    """Return how far the rates of profiles are from the reference's, as a share of each cell's largest; or None."""
    if "rates" not in reference:
        return None
    given = (reference[name].astype(np.float32) for name in ("condition", "latent", "library"))
    theirs = reference["rates"].astype(np.float32)
    apart = np.abs(backend.write_profiles(*given).rates - theirs).max(1) / theirs.max(1)
    return float(apart.max())


def instruct_tolerance(bundle: Bundle) -> Mapping[str, float]:
    """Return the largest differences that pass for a bundle; BundleError where a quantised one does not say."""
    if not bundle.manifest.is_quantized:
        return TOLERANCES[bundle.manifest.precision]
    parity = bundle.manifest.instruct_parity
    if parity is None or not parity.tolerance:
        raise BundleError(f"the bundle {bundle.name} does not say how exact it is; quantise it anew.")
    return parity.tolerance


def instruct_failures(parity: InstructParity) -> tuple[str, ...]:
    """Return one sentence for every figure outside its tolerance."""
    found = []
    for name, limit in parity.tolerance.items():
        value = getattr(parity, name)
        if not (value >= limit if name == _AGREEMENT else value <= limit):
            found.append(f"{name} is {value:.7g}, beyond the tolerance {limit:g}.")
    if _AGREEMENT not in parity.tolerance and parity.greedy_agreement is not None and parity.greedy_agreement < 1.0:
        found.append(f"only {parity.greedy_agreement:.1%} of the clear greedy steps choose the same token as torch.")
    return tuple(found)


def require_instruct_parity(parity: InstructParity, name: str) -> None:
    """Raise BundleError when a bundle is not what torch computed."""
    failures = instruct_failures(parity)
    if failures:
        raise BundleError(f"the bundle {name} does not reproduce the torch model: {' '.join(failures)}")
