"""Scores of vectors by scib-metrics."""

from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.errors import BackendError, InputError
from cellscribe.engine.integration import integration_scores


def _groups(spread: float) -> tuple[np.ndarray, list[str], list[str]]:
    draws = np.random.default_rng(0)
    centres = np.repeat(np.eye(6, dtype=np.float32)[:3], 50, axis=0)
    vectors = centres + draws.normal(0, spread, centres.shape).astype(np.float32)
    return vectors, ["B"] * 50 + ["T"] * 50 + ["NK"] * 50, ["one", "two"] * 75


@pytest.mark.slow
def test_types_that_lie_apart_score_higher() -> None:
    pytest.importorskip("scib_metrics", reason="the scores extra is not installed")
    vectors, labels, batches = _groups(0.05)
    vectors[7] = np.nan
    apart = integration_scores(vectors, labels, batches)
    mixed = integration_scores(_groups(2.0)[0], labels)
    assert apart.num_cells == 149
    assert apart.avg_bio > 0.85
    assert mixed.avg_bio < 0.5
    assert apart.avg_bio == pytest.approx((apart.nmi + apart.ari + apart.asw_label) / 3)
    assert apart.avg_batch is not None
    assert apart.avg_batch > 0.8
    assert "avg_batch" not in mixed.as_dict()


def test_what_cannot_be_scored_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels, batches = _groups(0.1)
    with pytest.raises(InputError, match="1 of the cell types are left among 50 cells"):
        integration_scores(vectors[:50], labels[:50])
    with pytest.raises(InputError, match="1 of the batches are left"):
        integration_scores(vectors, labels, ["one"] * 150)
    with pytest.raises(InputError, match="16 are needed"):
        integration_scores(vectors[45:55], labels[45:55])
    monkeypatch.setitem(__import__("sys").modules, "scib_metrics", None)
    with pytest.raises(BackendError, match=r"install it with: pip install 'cellscribe\[scores\]'"):
        integration_scores(vectors, labels, batches)
