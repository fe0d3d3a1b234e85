"""Bodies that ask for the packaged cells, and what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from running_service import Answer, Running

HDF5 = {"Content-Type": "application/x-hdf5"}
EMPTY = {"id": "empty", "genes": {}}


def gene_map(adata: ad.AnnData, row: int, values: np.ndarray, *, is_reversed: bool = False) -> dict[str, float]:
    """Return a cell as a client sends it."""
    found = {gene: float(x) for gene, x in zip(adata.var_names, values[row], strict=True) if x}
    return dict(reversed(found.items())) if is_reversed else found


def texts(answer: Any) -> dict[str, str]:
    """Return the texts of an answer, all of which are there."""
    assert answer.status == 200, answer.body
    assert all(one["status"] == "ok" for one in answer.json["results"])
    return {one["cell_id"]: one["text"] for one in answer.json["results"]}


def picked(cells: ad.AnnData, count: int = 1, at: int = 0, **more: Any) -> dict[str, Any]:
    """Return a body that picks cells of the service's own file."""
    return {"source": "demo", "cell_ids": list(cells.obs_names[at : at + count]), "max_new_tokens": 32} | more


def upload(running: Running, path: Path, query: str = "") -> Answer:
    """Send a file to be kept."""
    return running.post(f"/v1/uploads{query}", path.read_bytes(), headers=HDF5)


def folder_of(running: Running) -> Path:
    """Return where a service keeps the files that it was sent."""
    return Path(running.service.files._folder.name)
