"""Counts of cells that are written, drawn by seed and name: a cell is the same whatever else is written with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cellscribe.engine.backends.instruct import Profiles
from cellscribe.engine.bundle.shapes import ProfileShape
from cellscribe.engine.keyed import cell_keys, stream_keys
from cellscribe.engine.output.run import count

Floats = npt.NDArray[np.float32]

MAX_RATE = 1e8  # at which drawn rates are cut
_REACHED = 0.999 * MAX_RATE  # a count of such a rate is at least so large
_THETAS = (1e-8, 1e12)  # beyond them nothing changes, but for numbers that are none

_LATENTS, _COUNTS = 16, 17  # streams of draws


def draw_latents(names: Sequence[str], shape: ProfileShape, seed: int) -> tuple[Floats, Floats]:
    """Draw what profiles are decoded from.

    Returns
    -------
    Latent vectors [N, z], standard normal, and log library sizes [N, 1], normal as the checkpoint's cells were.
    """
    latents, libraries = np.empty((len(names), shape.n_latent), np.float32), np.empty((len(names), 1), np.float32)
    for i, one in enumerate(_generators(names, seed, _LATENTS)):
        latents[i] = one.standard_normal(shape.n_latent)
        libraries[i] = one.normal(shape.library_mean, shape.library_deviation)
    return latents, libraries


def are_finite(profiles: Profiles) -> npt.NDArray[np.bool_]:
    """Say of which cells all rates and logits are numbers, bool [N]; of the others nothing can be drawn."""
    return np.asarray(np.isfinite(profiles.rates).all(1) & np.isfinite(profiles.dropout).all(1))


def draw_counts(names: Sequence[str], profiles: Profiles, theta: Floats, seed: int) -> sp.csr_matrix:
    """Draw counts [N, G] from the zero-inflated negative binomial of every gene.

    Parameters
    ----------
    names
        Of the cells [N].
    profiles
        Rates and logits of dropout, finite ones (:func:`are_finite`).
    theta
        Inverse dispersion of every gene [G], no NaN. With 0 a gene is never expressed, with infinity its counts are
        those of its rate alone.
    """
    rows, shape = [], np.clip(theta.astype(np.float64), *_THETAS)
    for i, one in enumerate(_generators(names, seed, _COUNTS)):
        rate = one.gamma(shape, profiles.rates[i].astype(np.float64) / shape)
        counts = one.poisson(np.minimum(rate, MAX_RATE)).astype(np.float32)
        is_kept = one.random(len(theta)) >= _probability(profiles.dropout[i])
        rows.append(sp.csr_matrix(counts * is_kept))
    return sp.csr_matrix(sp.vstack(rows))


def cut_rates_note(counts: sp.csr_matrix) -> str:
    """Say how many of drawn counts are as large as they can be; empty where none is."""
    number = int((counts.data >= _REACHED).sum())
    if not number:
        return ""
    reach = "reaches" if number == 1 else "reach"
    return f"{count(number, 'count')} {reach} {MAX_RATE:,.0f}, where drawn rates are cut; such cells mean little."


def expected_counts(profiles: Profiles) -> sp.csr_matrix:
    """Return the mean of that distribution, [N, G]."""
    return sp.csr_matrix((1.0 - _probability(profiles.dropout)) * profiles.rates.astype(np.float64), dtype=np.float32)


def _probability(logits: Floats) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -500.0, 500.0)))
    return found


def _generators(names: Sequence[str], seed: int, stream: int) -> list[np.random.Generator]:
    keys = stream_keys(seed, cell_keys(list(names)), stream)
    return [np.random.Generator(np.random.Philox(key=int(key))) for key in keys]
