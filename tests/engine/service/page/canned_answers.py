"""Cells, tokens and events as the service would send them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

NAMES = ("CD14+ Monocyte", "CD19+ B", "CD56+ NK", "CD8+ Cytotoxic T", "Dendritic", "CD4+/CD45RO+ Memory", "CD34+")
MARKERS = (
    "FTL", "LST1", "AIF1", "FCER1G", "FCGR3A", "CFD", "PSAP", "TYROBP", "CTSS", "FCN1",
    "CD79A", "CD79B", "MS4A1", "CD74", "LTB",
)  # fmt: skip
GENES = (*MARKERS, *(f"GENE{number}" for number in range(241)))
TEXTS = (
    "The expression profile is that of a CD14+ monocyte from human peripheral blood. The cell is in an inflammatory "
    "state, with alarmin genes raised. Characteristic genes detected are FTL, LST1, AIF1, FCER1G and FCGR3A.",
    "The expression profile is that of a CD19+ B cell from human peripheral blood. The cell is in an "
    "interferon-responsive state. Characteristic genes detected are CD79A, CD79B, MS4A1, CD74 and LTB.",
)


def cells_answer(source: str, name: str, column: str, n_cells: int = 140) -> dict[str, Any]:
    """Return seven clouds of cells."""
    rng = np.random.default_rng(7)
    groups = rng.integers(0, len(NAMES), n_cells)
    centres = rng.uniform(-8, 8, (len(NAMES), 2))
    points = np.round(centres[groups] + rng.normal(size=(n_cells, 2)), 3)
    letters = rng.choice(list("ACGT"), (n_cells, 14))
    ids = [f"{''.join(row)}-{number}" for number, row in enumerate(letters)]
    names = list(NAMES) if column == "cell_type" else [f"donor {letter}" for letter in "PQ"]
    of = groups if column == "cell_type" else groups % 2
    return {
        "source": source, "name": name, "n_cells": n_cells, "ids": ids, "is_truncated": False,
        "map": {"kind": "UMAP", "x": points[:, 0].tolist(), "y": points[:, 1].tolist()},
        "groups": {"column": column, "names": names, "of": of.tolist()},
        "columns": ["cell_type", "donor"],
        "genes": {"known": 256, "unknown": 509, "sentence": "256 of the file's 765 genes match (256 by symbol)."},
        "expires_s": None if source == "demo" else 3600,
    }  # fmt: skip


def token_events(cell: int, text: str, n_tokens: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tokens of a text with attention that follows the genes it names."""
    rng = np.random.default_rng(cell)
    total = np.zeros(len(GENES))
    pieces = re.findall(r"\s?[^\s,.]{1,6}|[,.]", text)[:n_tokens]
    for i, piece in enumerate(pieces):
        weights = rng.dirichlet(np.full(len(GENES), 0.02))
        weights[10 * cell : 10 * cell + 8] += rng.dirichlet(np.full(8, 0.5))
        weights /= weights.sum()
        total += weights
        top = np.argsort(-weights)[:10]
        running = np.argsort(-total)[:10]
        scaled = np.round(255 * weights / weights.max()).astype(np.uint8)
        yield "token", {
            "cell": cell, "i": i, "text": piece, "token": 100 + i, "logprob": -0.02 * (i % 7),
            "genes": [[GENES[gene], float(weights[gene])] for gene in top],
            "running": [[GENES[gene], float(total[gene] / total.sum())] for gene in running],
            "weights": base64.b64encode(scaled.tobytes()).decode(),
        }  # fmt: skip
    largest = np.argsort(-total)[:10]
    yield "result", {
        "cell": cell, "status": "ok", "text": text, "finish_reason": "stop", "tokens": len(pieces),
        "mean_logprob": -0.25, "latency_ms": 81.5, "queue_ms": 0.3, "time_to_first_token_ms": 12.2,
        "top_genes": [{"gene": GENES[gene], "weight": float(total[gene] / total.sum())} for gene in largest],
        "named_genes": [gene for gene in MARKERS if gene in text], "grounding": 0.5,
    }  # fmt: skip


def stream(request: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of a description, the cells' tokens in turn."""
    ids = request["cell_ids"]
    genes = {"known": 256, "unknown": 509}
    yield "start", {"id": "desc-1", "model": "demo", "cells": ids, "genes": genes, "settings": {}}
    ways = []
    for cell, cell_id in enumerate(ids):
        yield "cell", {"cell": cell, "cell_id": cell_id, "grid": list(GENES)}
        ways.append((cell_id, token_events(cell, TEXTS[cell % 2], request["max_new_tokens"])))
    n_tokens = 0
    while ways:
        for way in list(ways):
            name, data = next(way[1])
            n_tokens += name == "token"
            yield name, {**data, "cell_id": way[0]}
            if name == "result":
                ways.remove(way)
    yield "done", {"usage": {"cells": len(ids), "completion_tokens": n_tokens}}
