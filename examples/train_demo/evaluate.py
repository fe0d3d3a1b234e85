"""Measure the packaged model on held-out cells: ``python examples/train_demo/evaluate.py [--bundle DIR]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from baseline import predict_held_out
from cells import Cells, load, split
from package_cells import FILE
from texts import TYPES, Writer, named_genes, named_state, named_type

import cellscribe as cs
from cellscribe.engine.versions import versions

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "demo_heldout.json"


def measure(bundle: str, packaged: ad.AnnData) -> dict[str, Any]:
    """Describe the packaged cells greedily with a bundle and judge the texts."""
    cells = load()
    train, held_out = (cells.take(rows) for rows in split(cells))
    if set(packaged.obs_names) != set(held_out.names):
        raise SystemExit("the packaged cells are not the held-out ones; run package_cells.py")
    model = cs.load(bundle)
    started = time.perf_counter()
    frame = model.describe(packaged, copy=True).loc[list(held_out.names)]
    seconds = time.perf_counter() - started
    guesses, strength = predict_held_out()
    named = [named_type(text) or "none" for text in frame["description"]]
    linear_right = float(np.mean(guesses == held_out.labels))
    return {
        "bundle_hash": model.bundle.hash,
        "cells": len(held_out),
        "type_names": TYPES,
        "type_accuracy": float(np.mean(np.array(named) == held_out.labels)),
        "logistic_regression_accuracy": linear_right,
        "logistic_regression_C": strength,
        **judge_genes(frame, held_out),
        "share_naming_the_state_of_the_rule": judge_states(frame, train, held_out),
        "share_ended_by_the_model": float((frame["finish_reason"] == "stop").mean()),
        "cells_per_second": len(frame) / seconds,
        "confusion": confusion(held_out.labels, np.array(named)),
        "logistic_regression_confusion": confusion(held_out.labels, guesses),
        "hardware": {"cpu": cpu_name(), "cores": os.cpu_count(), "device": "CPU"},
        "versions": versions(),
    }


def cpu_name() -> str:
    """Return the processor's name where the system gives it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def judge_genes(frame: pd.DataFrame, cells: Cells) -> dict[str, float]:
    """Judge the genes that texts name: whether they are attended to, and whether the cell expresses them."""
    spoken = [named_genes(text, cells.genes) for text in frame["description"]]
    expressed = [
        cells.expression[row, cells.genes.index(gene)] > 0 for row, genes in enumerate(spoken) for gene in genes
    ]
    return {
        "share_naming_3_of_top_10": float(np.mean([len(genes) >= 3 for genes in frame["named_genes"]])),
        "mean_of_top_10_named": float(np.mean([len(genes) for genes in frame["named_genes"]])),
        "genes_named_per_text": float(np.mean([len(set(genes)) for genes in spoken])),
        "share_of_named_genes_expressed": float(np.mean(expressed)),
        "share_of_texts_that_repeat_a_gene": float(np.mean([len(set(genes)) < len(genes) for genes in spoken])),
    }


def judge_states(frame: pd.DataFrame, train: Cells, held_out: Cells) -> float:
    """Return the share of texts whose state is the one that the rule of texts.py finds in the cell."""
    truth = Writer.fit(train).states(held_out)
    return float(np.mean([named_state(t) == s for t, s in zip(frame["description"], truth, strict=True)]))


def confusion(truth: np.ndarray, given: np.ndarray) -> dict[str, dict[str, int]]:
    """Count given labels per true label, leaving zeros out."""
    return {
        label: {str(g): int(n) for g, n in zip(*np.unique(given[truth == label], return_counts=True), strict=True)}
        for label in sorted(set(truth))
    }


def as_markdown(result: dict[str, Any]) -> str:
    """Lay the result out as two tables."""
    shares = {
        "names the right type": "type_accuracy",
        "logistic regression, same split": "logistic_regression_accuracy",
        "names at least 3 of the 10 most attended genes": "share_naming_3_of_top_10",
        "named genes that the cell expresses": "share_of_named_genes_expressed",
        "names the state that the rule finds": "share_naming_the_state_of_the_rule",
    }
    lines = [f"| of {result['cells']} held-out cells | share |", "|---|---|"]
    lines += [f"| {words} | {result[key]:.1%} |".replace("%", " %") for words, key in shares.items()]
    labels = list(result["confusion"])
    seen = [*labels, *(["none"] if any("none" in row for row in result["confusion"].values()) else [])]
    lines += ["", "| true \\ named | " + " | ".join(seen) + " | logistic regression right |"]
    lines += ["|---|" + "---|" * (len(seen) + 1)]
    for label, row in result["confusion"].items():
        right = result["logistic_regression_confusion"][label].get(label, 0)
        cells = " | ".join(str(row.get(other, "")) for other in seen)
        lines.append(f"| {label} | {cells} | {right} of {sum(row.values())} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="demo")
    parser.add_argument("--cells", type=Path, default=FILE)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    result = measure(options.bundle, ad.read_h5ad(options.cells))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = as_markdown(result)
    options.out.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
