from __future__ import annotations

import math

import pytest

from cellscribe.engine.errors import UsageError
from cellscribe.engine.types import Description, Sampling, TopGenes, check_max_new_tokens


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"top_p": 0.0, "temperature": 1.0}, "top_p"),
        ({"top_p": 1.5, "temperature": 1.0}, "top_p"),
        ({"top_p": float("nan"), "temperature": 1.0}, "top_p"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"temperature": 1e-40}, "temperature"),
        ({"top_p": 0.9}, "no effect on greedy"),
    ],
)
def test_sampling_out_of_range_is_refused(values: dict[str, float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Sampling(**values)  # type: ignore[arg-type]


def test_sampling_says_what_it_is() -> None:
    assert Sampling().is_greedy
    assert Sampling().label() == "greedy"
    assert Sampling(0.9, 0.7, 3).label() == "top-p 0.9, temperature 0.7, seed 3"


def test_a_nucleus_that_is_given_needs_a_temperature() -> None:
    assert Sampling.of(None, 0.0, 1) == Sampling(seed=1)
    assert Sampling.of(None, 0.7, 1) == Sampling(0.9, 0.7, 1)
    assert Sampling.of(1.0, 0.0, 1).is_greedy
    with pytest.raises(UsageError, match=r"top_p 0.1 has no effect on greedy sampling; give a temperature"):
        Sampling.of(0.1, 0.0, 1)
    with pytest.raises(UsageError, match="top_p is 2; choose"):
        Sampling.of(2.0, 0.0, 1)


@pytest.mark.parametrize("value", [0, 31, 257, -5])
def test_token_limits(value: int) -> None:
    with pytest.raises(UsageError, match="32 to 256"):
        check_max_new_tokens(value)
    assert check_max_new_tokens(32) == 32


def test_grounding_is_the_share_of_top_genes_named() -> None:
    one = Description(
        "a", "CD3D", (1, 2), top_genes=TopGenes(("CD3D", "IL7R"), (0.6, 0.4), (0, 1)), named_genes=("CD3D",)
    )
    assert one.grounding == 0.5
    assert one.num_tokens == 2
    assert math.isnan(Description("b").grounding)
