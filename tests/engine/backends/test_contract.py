from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import pytest

import cellscribe as cs
from cellscribe.engine.errors import BundleError
from cellscribe.engine.packaged import packaged_cells


def put(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(raw: dict[str, Any]) -> None:
        for name in path[:-1]:
            raw = raw[name]
        raw[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("decoder", "n_layers", value=10**9),
        put("decoder", "n_layers", value=-1),
        put("decoder", "n_layers", value=5),
        put("decoder", "n_lower", value=1),
        put("decoder", "d_head", value=25),
        put("decoder", "n_kv_heads", value=10**7),
        put("decoder", "d_model", value=10**9),
        put("decoder", "vocab_size", value=10),
        put("decoder", "max_positions", value=60),
        put("encoder", "d_model", value=7),
        put("cross_attention", "n_heads", value=10**9),
        put("cross_attention", "d_memory", value=10**9),
        put("cross_attention", "form", value="materialised"),
        put("prompt", "token_ids", value=[]),
        put("prompt", "token_ids", value=[1, 2, 3]),
        put("prompt", "token_ids", value=[10**6, 2]),
    ],
)
def test_a_manifest_that_does_not_fit_its_graphs_is_refused_before_anything_is_allocated(
    tiny_bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    raw = json.loads((folder / "manifest.json").read_text())
    change(raw)
    (folder / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=r"export it anew|too few for a prompt"):
        cs.load(folder).describe(ad.read_h5ad(packaged_cells())[:2].copy())
