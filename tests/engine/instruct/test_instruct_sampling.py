from __future__ import annotations

import numpy as np

from cellscribe.engine.backends.instruct import Profiles
from cellscribe.engine.bundle.shapes import ProfileShape
from cellscribe.engine.instruct.sampling import cut_rates_note, draw_counts, draw_latents, expected_counts

SHAPE = ProfileShape(n_genes=3, n_latent=5, library_mean=7.0, library_deviation=0.5)


def test_latents_are_normal_and_keyed() -> None:
    names = [f"c{i}" for i in range(4000)]
    latents, libraries = draw_latents(names, SHAPE, 0)
    assert abs(latents.mean()) < 0.03
    assert abs(latents.std() - 1) < 0.03
    assert abs(libraries.mean() - 7) < 0.03
    assert abs(libraries.std() - 0.5) < 0.03
    again = draw_latents(names[::-1], SHAPE, 0)
    np.testing.assert_array_equal(again[0][::-1], latents)
    assert not np.array_equal(draw_latents(names, SHAPE, 1)[0], latents)


def test_counts_have_the_moments_of_the_distribution() -> None:
    count = 20_000
    rates, theta = np.array([0.5, 4.0, 50.0], np.float32), np.array([0.7, 2.0, 5.0], np.float32)
    dropout = np.array([-30.0, 0.0, -1.0], np.float32)
    profiles = Profiles(np.tile(rates, (count, 1)), np.tile(dropout, (count, 1)))
    drawn = draw_counts([f"c{i}" for i in range(count)], profiles, theta, 0).toarray()
    kept = 1 - 1 / (1 + np.exp(-dropout.astype(np.float64)))
    mean = kept * rates
    variance = kept * (rates + rates**2 / theta) + kept * (1 - kept) * rates**2
    np.testing.assert_allclose(drawn.mean(0), mean, rtol=0.05)
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.1)
    zero = 1 - kept + kept * (theta / (theta + rates)) ** theta
    np.testing.assert_allclose((drawn == 0).mean(0), zero, atol=0.01)
    np.testing.assert_allclose(expected_counts(profiles).toarray()[0], mean, rtol=1e-5)


def test_dispersions_at_the_ends_draw_numbers() -> None:
    rates, dropout = np.full((200, 3), 5.0, np.float32), np.full((200, 3), -30.0, np.float32)
    theta = np.array([0.0, np.inf, 1.0], np.float32)
    drawn = draw_counts([f"c{i}" for i in range(200)], Profiles(rates, dropout), theta, 0).toarray()
    assert np.isfinite(drawn).all()
    assert not drawn[:, 0].any()
    assert abs(drawn[:, 1].var() / drawn[:, 1].mean() - 1) < 0.4  # as of Poisson


def test_rates_that_are_cut_are_said() -> None:
    profiles, theta = Profiles(np.array([[1e12, 3.0]], np.float32), np.full((1, 2), -30.0, np.float32)), np.ones(2)
    drawn = draw_counts(["c"], profiles, theta.astype(np.float32), 0)
    assert cut_rates_note(drawn).startswith("1 count reaches 100,000,000, where drawn rates are cut")
    assert cut_rates_note(drawn[:, 1]) == ""
