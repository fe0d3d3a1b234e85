"""Checking that a bundle that reads ranks does what the torch model did when it was exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.choose import choose_backend
from cellscribe.engine.backends.match import MatchBackend
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.figures import MatchParity
from cellscribe.engine.bundle.load import REFERENCE
from cellscribe.engine.errors import BundleError

# float32 leaves room for sums in another order; float16 is as recommended for the golden LangCell values.
TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"states_max_error": 5e-4, "vectors_max_error": 1e-4, "texts_max_error": 1e-4, "match_max_error": 1e-3},
    "fp16": {"states_max_error": 0.1, "vectors_max_error": 3e-2, "texts_max_error": 3e-2, "match_max_error": 0.1},
}


@dataclass(frozen=True)
class MatchVerifyReport:
    """The outcome of a check: `failures` are sentences, none when all is well."""

    bundle: str
    device: str
    parity: MatchParity
    failures: tuple[str, ...]
    timings: tuple[()] = ()
    facts: tuple[()] = ()

    @property
    def passed(self) -> bool:
        """Whether every figure is within its tolerance."""
        return not self.failures

    def lines(self) -> list[str]:
        """Say it in lines for a terminal."""
        return [f"{self.bundle} on {self.device}", *parity_lines(self.parity), *self.failures]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for a report that can be sent."""
        return {**asdict(self), "passed": self.passed}


def parity_lines(parity: MatchParity) -> list[str]:
    """Say how far a bundle is from torch."""
    said = f"{parity.cells} cells ({parity.source}): states differ by at most {parity.states_max_error:.2g}, "
    said += f"vectors by {parity.vectors_max_error:.2g}"
    if parity.texts_max_error is None or parity.match_max_error is None:
        return [said]
    more = (
        f"{parity.texts} texts: vectors differ by at most {parity.texts_max_error:.2g}, probabilities of matching by "
    )
    return [said, f"{more}{parity.match_max_error:.2g}"]


def verify_match_bundle(
    bundle: Bundle, backend: str = "auto", threads: int | None = None, plans: Path | None = None
) -> MatchVerifyReport:
    """Run the reference cells and texts of an opened bundle and compare with what torch computed at export.

    Parameters
    ----------
    backend, threads, plans
        As for :class:`cellscribe.engine.rank_model.RankModel`.

    Raises
    ------
    BundleError
        When the bundle is damaged or carries no reference.
    BackendError
        When the backend cannot run here.
    """
    opened = cast(MatchBackend, choose_backend(bundle, backend, threads=threads, plans=plans).backend)
    kept = bundle.manifest.match_parity
    parity = measure_match_parity(bundle, opened, kept.source if kept else "reference cells")
    return MatchVerifyReport(bundle.name, opened.device, parity, match_failures(parity))


def measure_match_parity(
    bundle: Bundle, backend: MatchBackend, source: str, tolerance: Mapping[str, float] | None = None
) -> MatchParity:
    """Compare a backend with reference.safetensors; `tolerance` is what passes, None takes the bundle's.

    Raises
    ------
    BundleError
        When the bundle carries no reference.
    """
    reference = bundle.tensors(REFERENCE)
    cells, states = _rows(reference, "cell"), reference["states"].astype(np.float32)
    found = list(backend.encode_cells(cells, keeps_states=True))
    apart = [
        np.abs(_states(one.states) - theirs[: len(tokens)]).max()
        for one, theirs, tokens in zip(found, states, cells, strict=True)
    ]
    vectors = np.stack([one.vector for one in found])
    figures: dict[str, Any] = {
        "states_max_error": float(max(apart)),
        "vectors_max_error": float(np.abs(vectors - reference["vector"].astype(np.float32)).max()),
    }
    if "text" in reference:
        texts = backend.encode_texts(_rows(reference, "text"))
        every = np.arange(len(texts))
        match = np.stack([backend.match(one, texts, every) for one in found])
        figures |= {
            "texts": len(texts),
            "texts_max_error": float(np.abs(texts.vectors - reference["text_vector"].astype(np.float32)).max()),
            "match_max_error": float(np.abs(match - reference["match"].astype(np.float32)).max()),
        }
    limits = {name: limit for name, limit in (tolerance or match_tolerance(bundle)).items() if name in figures}
    return MatchParity(len(cells), source, **figures, tolerance=limits)


def match_tolerance(bundle: Bundle) -> Mapping[str, float]:
    """Return the largest differences that pass for a bundle; BundleError where a quantised one does not say."""
    if not bundle.manifest.is_quantized:
        return TOLERANCES[bundle.manifest.precision]
    parity = bundle.manifest.match_parity
    if parity is None or not parity.tolerance:
        raise BundleError(f"the bundle {bundle.name} does not say how exact it is; quantise it anew.")
    return parity.tolerance


def match_failures(parity: MatchParity) -> tuple[str, ...]:
    """Return one sentence for every figure outside its tolerance."""
    found = ((name, getattr(parity, name), limit) for name, limit in parity.tolerance.items())
    return tuple(
        f"{name} is {value:.7g}, beyond the tolerance {limit:g}." for name, value, limit in found if not value <= limit
    )


def require_match_parity(parity: MatchParity, name: str) -> None:
    """Raise BundleError when a bundle is not what torch computed."""
    failures = match_failures(parity)
    if failures:
        raise BundleError(f"the bundle {name} does not reproduce the torch model: {' '.join(failures)}")


def _rows(reference: Mapping[str, npt.NDArray[np.generic]], name: str) -> list[npt.NDArray[np.int64]]:
    """Sequences that were padded to one length."""
    return [
        row[:length].astype(np.int64)
        for row, length in zip(reference[name], reference[f"{name}_length"].astype(np.int64).tolist(), strict=True)
    ]


def _states(states: npt.NDArray[Any] | None) -> npt.NDArray[np.float32]:
    if states is None:
        raise ValueError("the backend gave no states")
    return states.astype(np.float32)
