"""Write the packaged cells: the held-out ones, log-normalised, one cell of each of six types first."""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from cells import Cells, load, split
from scipy import sparse

FILE = Path(__file__).resolve().parents[2] / "cellscribe" / "demo" / "cells.h5ad"
SHOWN = ("CD14+ Monocyte", "CD19+ B", "CD56+ NK", "CD8+ Cytotoxic T", "Dendritic", "CD4+/CD25 T Reg")


def shown_first(cells: Cells) -> Cells:
    """Put the first cell of each shown type first, the rest in file order: chosen by label, never by prediction."""
    shown = [int(np.flatnonzero(cells.labels == label)[0]) for label in SHOWN]
    return cells.take(np.array(shown + [i for i in range(len(cells)) if i not in shown]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE)
    out = parser.parse_args().out
    cells = load()
    cells = shown_first(cells.take(split(cells)[1]))
    obs = pd.DataFrame({"cell_type_reference": pd.Categorical(cells.labels)}, index=pd.Index(cells.names))
    adata = ad.AnnData(sparse.csr_matrix(cells.expression), obs, pd.DataFrame(index=pd.Index(cells.genes)))
    adata.uns["source"] = "pbmc68k_reduced, packaged with scanpy (BSD-3-Clause); held-out cells, log-normalised"
    out.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(out, compression="gzip")
    print(f"{out}: {adata.n_obs} cells x {adata.n_vars} genes, {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
