from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cellscribe.engine.atlas.job import AtlasJob, Task
from cellscribe.engine.atlas.tasks import open_atlas_bundle
from cellscribe.engine.errors import UsageError
from cellscribe.engine.types import Sampling


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("embed", {"sampling": Sampling(0.9, 0.7)}, "--sampling has no effect on --task embed"),
        ("embed", {"top_genes": 3}, "--top-genes has no effect on --task embed"),
        ("embed", {"max_new_tokens": 40}, "--max-new-tokens has no effect on --task embed"),
        ("annotate", {"top_genes": 3}, "--top-genes has no effect on --task annotate"),
        ("annotate", {"sampling": Sampling(0.9, 0.7)}, "--sampling has no effect on --task annotate"),
        ("embed", {"labels": Path("x")}, "--labels go with"),
    ],
)
def test_options_without_effect_are_refused(task: Task, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        AtlasJob(task, **options)


def test_what_results_do_not_depend_on_is_no_part_of_a_run() -> None:
    embed = AtlasJob("embed").settings()
    assert [embed[name] for name in ("sampling", "top_genes", "max_new_tokens")] == [None, None, None]
    assert AtlasJob("embed", sampling=Sampling(seed=3)).settings() == embed
    written = AtlasJob("annotate", max_new_tokens=40).settings()
    assert (written["max_new_tokens"], written["sampling"]) == (40, None)
    clusters = AtlasJob("embed", per_cluster="kind", max_new_tokens=40, sampling=Sampling(0.9, 0.7)).settings()
    assert (clusters["max_new_tokens"], clusters["sampling"]["temperature"]) == (40, 0.7)


def test_cells_meet_both_conditions() -> None:
    assert AtlasJob("embed").condition is None
    assert AtlasJob("embed", where="a == 1").condition == "a == 1"
    assert AtlasJob("embed", where="a == 1 or b", cells_where="c").condition == "(a == 1 or b) and (c)"


def test_labels_that_are_matched_take_no_tokens(tiny_langcell: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("T cell")
    job = AtlasJob("annotate", str(tiny_langcell), labels=tmp_path / "labels.txt", max_new_tokens=40)
    with pytest.raises(UsageError, match="leave --max-new-tokens out"):
        open_atlas_bundle(job)
