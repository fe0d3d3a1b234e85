from __future__ import annotations

import math

import numpy as np

from cellscribe.engine.output.frame import to_frame
from cellscribe.engine.output.run import Run, reasons_of


def test_rows_follow_the_descriptions(run: Run) -> None:
    frame = to_frame(run)
    assert frame.index.name == "cell_id"
    assert list(frame.index) == ["cell-4", "cell-1", "cell-6"]
    assert frame.loc["cell-4", "description"] == "A cell led by GENE3, of blood."
    assert frame.loc["cell-6", "top_genes"] == ["GENE2", "GENE5", "GENE11"]
    assert frame.loc["cell-4", "top_gene_weights"] == [0.5, 0.25]
    assert frame.loc["cell-4", "grounding"] == 0.5
    assert list(frame["num_tokens"]) == [3, 0, 3]
    assert frame.loc["cell-1", "status"] == "failed: all counts are zero"
    assert math.isnan(frame.loc["cell-1", "mean_logprob"])


def test_pools_count_their_cells(pools: Run) -> None:
    frame = to_frame(pools)
    assert frame.index.name == "kind"
    assert dict(frame["num_cells"]) == {"a": 2, "c": 2}


def test_embeddings_alone_become_columns() -> None:
    run = Run(rows=np.arange(2), embeddings=np.arange(6, dtype=np.float32).reshape(2, 3), cell_ids=("x", "y"))
    frame = to_frame(run)
    assert list(frame.columns) == ["embedding_0", "embedding_1", "embedding_2"]
    assert list(frame.loc["y"]) == [3.0, 4.0, 5.0]


def test_a_vector_that_is_missing_is_a_failure() -> None:
    run = Run(rows=np.arange(2), embeddings=np.array([[1, 2], [np.nan, np.nan]], np.float32), cell_ids=("x", "y"))
    assert [one.cell_id for one in run.failed] == ["y"]
    assert run.failure_sentence().startswith("1 of 2 cells could not be embedded: ")


def test_failures_are_said_in_one_sentence(run: Run) -> None:
    assert run.failure_sentence() == "1 of 3 cells could not be described: all counts are zero (cell-1)."


def test_reasons_that_differ_in_numbers_alone_are_one() -> None:
    failed = [(f"c{i}", f"failed: its {1_100 - 50 * i:,} tokens exceed 1024; see CD3") for i in range(5)]
    told = reasons_of([*failed, ("c5", "failed: all counts are zero"), ("c6", "failed: see CD4")])
    assert told == (
        "its 900 to 1,100 tokens exceed 1024; see CD3 (c0, c1, c2 and 2 more); all counts are zero (c5); see CD4 (c6)"
    )
    assert reasons_of([(name, name) for name in "abcde"]) == "a (a); b (b); c (c); and 2 other reasons"
