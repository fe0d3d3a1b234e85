"""Bounds that go together, and how much of the room one client may take."""

from __future__ import annotations

import pytest
from running_service import assert_sentence

from cellscribe.engine.errors import UsageError
from cellscribe.engine.service.limits import SHARE, ServiceLimits, granted, share_of


def test_a_request_that_could_never_wait_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError, match=r"256 cells \(--max-cells\), and only 100 may wait \(--max-queue\)") as found:
        ServiceLimits(queue_cells=100)
    assert_sentence(str(found.value))
    assert ServiceLimits(queue_cells=100, cells=100).cells == 100
    whose = r"and only 50 of one client \(0.5 of them, --client-share\) may wait"
    with pytest.raises(UsageError, match=whose):
        ServiceLimits(queue_cells=100, cells=51, client_share=0.5)
    assert ServiceLimits(queue_cells=100, cells=50, client_share=0.5).cells == 50


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan")])
def test_a_share_is_a_part(share: float) -> None:
    with pytest.raises(UsageError, match="the limit client_share is"):
        ServiceLimits(client_share=share)


@pytest.mark.parametrize(
    ("asked", "keys", "is_local", "share"),
    [
        (None, (), True, 1.0),  # everybody is this machine
        (None, (), False, SHARE),
        (None, ("k",), True, 1.0),  # everybody has the one key
        (None, ("k",), False, 1.0),
        (None, ("k", "l"), True, SHARE),
        (0.2, (), True, 0.2),
        (1.0, ("k", "l"), False, 1.0),
    ],
)
def test_a_share_is_for_one_of_several(
    asked: float | None, keys: tuple[str, ...], is_local: bool, share: float
) -> None:
    assert share_of(asked, keys, is_local) == share


def test_there_is_always_room_for_the_next_client() -> None:
    taken: list[int] = []
    for _ in range(5):
        taken.append(granted(64, sum(taken), 0.5))
    assert taken == [32, 16, 8, 4, 2]
    assert granted(64, 64, 0.5) == 1
    assert granted(64, 10, 1.0) == 54
