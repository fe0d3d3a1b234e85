"""Genes that a cell lacks are fed as zeros, and told apart from those that it has."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
from running_service import Running

GENES = {"CD3D": 6, "LTB": 9, "IL7R": 5, "CD8A": 0}
BODY = {"cells": [{"id": "c1", "genes": GENES}], "max_new_tokens": 32, "top_genes": 200}


def stream(running: Running, body: dict[str, Any]) -> dict[str, Any]:
    """Return the last event of each kind."""
    return dict(running.events("/v1/describe", body | {"stream": True, "grid": True}))


def test_top_genes_say_whether_the_cell_has_them(running: Running) -> None:
    (whole,) = running.post("/v1/describe", BODY).json["results"]
    detected = {one["gene"] for one in whole["top_genes"] if one["is_detected"]}
    assert detected == {"CD3D", "LTB", "IL7R"}
    assert len(whole["top_genes"]) > 3
    assert stream(running, BODY)["result"]["top_genes"] == whole["top_genes"]
    part = {"type": "cell", "cell": BODY["cells"][0]}  # type: ignore[index]
    talk = running.post("/v1/chat/completions", {"messages": [{"role": "user", "content": [part]}]}).json
    assert any(not one["is_detected"] for one in talk["cellscribe"]["result"]["top_genes"])


def test_a_grid_says_which_of_its_genes_the_cell_has(running: Running) -> None:
    cell = stream(running, BODY)["cell"]
    assert {cell["grid"][place] for place in cell["detected"]} == {"CD3D", "LTB", "IL7R"}


def test_cells_of_a_file_say_so_too(running: Running, cells: ad.AnnData) -> None:
    body = {"source": "demo", "cell_ids": [cells.obs_names[3]], "max_new_tokens": 4, "top_genes": 200}
    last = stream(running, body)
    row = cells.X[3].toarray().ravel() if hasattr(cells.X, "toarray") else np.asarray(cells.X[3])
    has = {gene for gene, count in zip(cells.var_names, row, strict=True) if count > 0}
    assert {last["cell"]["grid"][place] for place in last["cell"]["detected"]} == has & set(last["cell"]["grid"])
    for one in last["result"]["top_genes"]:
        assert one["is_detected"] == (one["gene"] in has)


def test_a_cell_that_fails_has_no_genes(running: Running) -> None:
    (found,) = running.post("/v1/describe", {"cells": [{"genes": {"CD3D": 0}}]}).json["results"]
    assert (found["status"], found["top_genes"]) == ("failed: it has no counts", [])
