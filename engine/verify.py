"""Checking that a bundle does on this machine what the torch model did when it was exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Backend
from cellscribe.engine.backends.choose import Choice, choose_backend, precision_of, remarks_of
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.backends.opening import CPU, NATIVE
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.bundle.figures import Parity
from cellscribe.engine.bundle.load import REFERENCE
from cellscribe.engine.device_facts import report_facts
from cellscribe.engine.errors import BundleError
from cellscribe.engine.measure import Expected, Timing, expected_of, real_cells, teacher_forced, time_backend
from cellscribe.engine.measure import reference_batch as _batch

_AGREEMENT = "greedy_agreement"
_COMPARED = "compared with ONNX Runtime on the CPU"
# Largest differences that pass, by the precision that the backend computes in. float32 leaves room for sums in another
# order. The float16 limit of the logits is that of the golden Llama values; those of memory and cell are wider than
# what is recommended for the golden three-layer encoders (5e-2, cosine 0.9999), as rounding grows with depth. How far a
# quantised bundle may be from torch was measured when it was made: its manifest says.
TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"memory_max_error": 5e-4, "cell_max_error": 5e-4, "logits_max_error": 2e-3, "memory_min_cosine": 0.999999},
    "fp16": {"memory_max_error": 0.1, "cell_max_error": 0.1, "logits_max_error": 0.15, "memory_min_cosine": 0.999},
}


@dataclass(frozen=True)
class VerifyReport:
    """The outcome of a check: `failures` are sentences, none when all is well.

    `against_cpu` says how far the backend is from ONNX Runtime on the CPU, where the two were compared.
    """

    bundle: str
    device: str
    parity: Parity
    failures: tuple[str, ...]
    backend: str = CPU
    against_cpu: Parity | None = None
    timings: tuple[Timing, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every figure is within its tolerance."""
        return not self.failures

    def lines(self) -> list[str]:
        """Say it in lines for a terminal."""
        lines = [f"{self.bundle} on {self.device}", *_parity_lines(self.parity)]
        if self.against_cpu is not None:
            lines += [f"{_COMPARED}:", *_parity_lines(self.against_cpu)]
        return [*lines, *(one.line() for one in self.timings), *self.remarks, *self.failures]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for a report that can be sent."""
        timings = [{**asdict(one), "ms_per_cell": one.ms_per_cell} for one in self.timings if not one.why_not]
        skipped = {f"{one.slots} slots": one.why_not for one in self.timings if one.why_not}
        whole = {**asdict(self), "timings": timings, "not_timed": skipped, "passed": self.passed}
        return {**whole, "facts": [list(fact) for fact in self.facts]}


def verify_bundle(
    bundle: Bundle | str,
    threads: int | None = None,
    *,
    backend: str = "auto",
    cells: Path | None = None,
    plans: Path | None = None,
    is_timed: bool = False,
) -> VerifyReport:
    """Run the bundle's reference cells and compare with what torch computed at export.

    A backend for a GPU is also compared with ONNX Runtime on the CPU, on more cells, and timed. So is our own library
    for CPUs where it is asked for by its name or with cells; taken by itself it stays with torch's reference, which is
    over in moments, as ONNX Runtime would need minutes for a large bundle. With `is_timed` all is done.

    Parameters
    ----------
    bundle
        An opened bundle, or its folder.
    threads, backend, plans
        See :class:`cellscribe.engine.source_model.SourceModel`.
    cells
        Cells to time, and to compare with ONNX Runtime; None takes the packaged ones.

    Raises
    ------
    BundleError
        When the bundle is damaged or carries no reference.
    BackendError
        When the backend cannot run here.
    """
    opened = open_bundle(bundle) if not isinstance(bundle, Bundle) else bundle
    choice = choose_backend(opened, backend, threads=threads, plans=plans)
    return examine_backend(opened, choice, threads, cells, is_timed or backend == NATIVE)


def examine_backend(
    bundle: Bundle, choice: Choice, threads: int | None = None, cells: Path | None = None, is_timed: bool = False
) -> VerifyReport:
    """Compare an open backend with torch; a thorough check compares it with ONNX Runtime on the CPU and times it.

    Thorough is any check of a backend for GPUs, and one of the CPU's with `cells` or `is_timed`.
    """
    backend, against = choice.backend, None
    source = bundle.manifest.parity.source if bundle.manifest.parity else "reference cells"
    parity = measure_parity(bundle, backend, source)
    is_timed = is_timed or cells is not None or choice.name not in (CPU, NATIVE)
    batch, origin = real_cells(bundle, cells) if is_timed else (None, "")
    if batch is not None and choice.name != CPU:
        cpu = OnnxRuntimeCpu(bundle, threads)
        against = compare(bundle, backend, expected_of(bundle, cpu, batch), origin)
    failures = parity_failures(parity) + tuple(
        f"{_COMPARED}: {one}" for one in (parity_failures(against, "ONNX Runtime") if against else ())
    )
    timings = time_backend(bundle, backend, batch) if batch is not None else ()
    unsuitable = (origin,) if batch is None and origin else ()
    return VerifyReport(
        bundle=bundle.name,
        device=backend.device,
        parity=parity,
        failures=failures,
        backend=choice.name,
        against_cpu=against,
        timings=timings,
        facts=tuple(report_facts(bundle, choice)),
        remarks=(*choice.passed_over(), *unsuitable, *remarks_of(backend)),
    )


def _parity_lines(p: Parity) -> list[str]:
    lines = [
        f"{p.cells} cells ({p.source}): memory differs by at most {p.memory_max_error:.2g} "
        f"(cosine at least {p.memory_min_cosine:.7f}), cell embedding by {p.cell_max_error:.2g}"
    ]
    if p.logits_max_error is None:
        return lines
    agreement = (
        "no greedy step is clear enough to compare"
        if p.greedy_agreement is None
        else f"the same token at {p.greedy_agreement:.1%} of {p.tokens} greedy steps"
    )
    return [
        *lines,
        f"logits differ by at most {p.logits_max_error:.2g}; {agreement} ({p.near_ties} near-ties left out)",
    ]


def measure_parity(
    bundle: Bundle, backend: Backend, source: str, tolerance: Mapping[str, float] | None = None
) -> Parity:
    """Compare a backend with reference.safetensors; `tolerance` as for :func:`compare`."""
    reference = bundle.tensors(REFERENCE)
    tokens, logits = reference.get("tokens"), reference.get("logits")
    expected = Expected(
        batch=_batch(reference),
        memory=reference["memory"],
        cell=reference["cell"].astype(np.float32),
        tokens=None if tokens is None else tokens.astype(np.int64),
        logits=None if logits is None else logits.astype(np.float32),
    )
    return compare(bundle, backend, expected, source, tolerance)


def tolerance_of(bundle: Bundle, backend: Backend) -> Mapping[str, float]:
    """Return the largest differences that pass for a bundle on a backend; `greedy_agreement` and cosines at least.

    Raises
    ------
    BundleError
        When a quantised bundle does not say what passes for it.
    """
    if not bundle.manifest.is_quantized:
        return TOLERANCES[precision_of(bundle, backend)]
    if bundle.manifest.parity is None or not bundle.manifest.parity.tolerance:
        raise BundleError(f"the bundle {bundle.name} does not say how exact it is; quantise it anew.")
    return bundle.manifest.parity.tolerance


def compare(
    bundle: Bundle, backend: Backend, expected: Expected, source: str, tolerance: Mapping[str, float] | None = None
) -> Parity:
    """Compare what a backend computes for a batch with what was computed elsewhere.

    Parameters
    ----------
    tolerance
        What passes; None takes :func:`tolerance_of`. With an entry `greedy_agreement` near-ties count, too.
    """
    encoded, real = backend.encode(expected.batch), expected.batch.mask
    theirs, ours = expected.memory[real].astype(np.float64), encoded.host_memory()[real].astype(np.float64)
    cosine = (theirs * ours).sum(-1) / (np.linalg.norm(theirs, axis=-1) * np.linalg.norm(ours, axis=-1))
    limits = dict(tolerance_of(bundle, backend) if tolerance is None else tolerance)
    figures: dict[str, Any] = {
        "memory_max_error": float(np.abs(theirs - ours).max()),
        "memory_min_cosine": float(cosine.min()),
        "cell_max_error": float(np.abs(expected.cell.astype(np.float64) - encoded.cell).max()),
    }
    if not bundle.describes or expected.tokens is None or expected.logits is None:
        return Parity(len(real), source, **figures, tolerance=limits)
    logits = teacher_forced(bundle, backend, encoded.memory, real, expected.tokens)
    is_tie = -1.0 if _AGREEMENT in limits else 2 * limits["logits_max_error"]
    steps = _compare_logits(expected.logits, logits, is_tie)
    return Parity(len(real), source, **figures, **steps, tolerance=limits)


def _compare_logits(theirs: npt.NDArray[np.float32], ours: npt.NDArray[np.float32], is_tie: float) -> dict[str, Any]:
    """Compare logits [B, T, V]; where torch's two best are no further apart than `is_tie`, either may come first."""
    best = np.partition(theirs, -2, axis=-1)[..., -2:]
    clear = best[..., 1] - best[..., 0] > is_tie
    same = theirs.argmax(-1) == ours.argmax(-1)
    return {
        "logits_max_error": float(np.abs(theirs - ours).max()),
        "greedy_agreement": float(same[clear].mean()) if clear.any() else None,
        "tokens": int(clear.size),
        "near_ties": int((~clear).sum()),
    }


def parity_failures(parity: Parity, whom: str = "torch") -> tuple[str, ...]:
    """Return one sentence for every figure outside its tolerance; `whom` it was compared with."""
    found = []
    for name, limit in parity.tolerance.items():
        value = getattr(parity, name)
        if value is None:
            continue
        bad = not value >= limit if name in (_AGREEMENT, "memory_min_cosine") else not value <= limit
        if bad:
            found.append(f"{name} is {value:.7g}, beyond the tolerance {limit:g}.")
    if _AGREEMENT not in parity.tolerance and parity.greedy_agreement is not None and parity.greedy_agreement < 1.0:
        found.append(f"only {parity.greedy_agreement:.1%} of the clear greedy steps choose the same token as {whom}.")
    return tuple(found)


def require_parity(parity: Parity, name: str) -> None:
    """Raise BundleError when a bundle is not what torch computed."""
    failures = parity_failures(parity)
    if failures:
        raise BundleError(f"the bundle {name} does not reproduce the torch model: {' '.join(failures)}")
