"""Measure the packaged C2S model on held-out cells: ``python examples/train_c2s/evaluate.py --data FOLDER``."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
from baselines import judge
from sets import BLOOD, CellSet, Split, load

from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.cells import open_cells
from cellscribe.engine.packaged import named_bundle, packaged_cells
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.text_cells import write_cells
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.types import Sampling
from cellscribe.engine.versions import versions

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "demo_c2s_heldout.json"
WRITTEN = ("CD19+ B cell", "CD14+ monocyte", "CD56+ natural killer cell", "dendritic cell", "CD8+ cytotoxic T cell")
COPIES, SHOWN = 20, 15
Labels = npt.NDArray[np.str_]


def of_set(model: TextModel, split: Split) -> dict[str, Any]:
    """Annotate the held-out cells of one set, from its labels and freely, and let the yardsticks do the same."""
    cells, labels = split.held_out, sorted({str(one) for one in split.train.labels})
    with open_cells(as_adata(cells)) as source:
        listed = model.about_cells(source, labels=labels, batch_size=32)
        free = model.about_cells(source, batch_size=32)
    if any(one.status != "ok" for one in (*listed, *free)):
        raise SystemExit(
            f"a cell of {cells.name} failed: {next(o.status for o in (*listed, *free) if o.status != 'ok')}"
        )
    given, said = np.array([one.text for one in listed]), np.array([one.text for one in free])
    yardsticks = {name: right(found, cells.labels) for name, found in judge(split, model.num_genes).items()}
    return {
        "trained_on": len(split.train),
        "cells": len(cells),
        "types": len(labels),
        "accuracy_listed": right(given, cells.labels),
        "accuracy_free": right(said, cells.labels),
        "share_of_free_answers_that_are_labels": float(np.isin(said, labels).mean()),
        "mean_score_where_right": mean_score(listed, given == cells.labels),
        "mean_score_where_wrong": mean_score(listed, given != cells.labels),
        "yardsticks": yardsticks,
        "confusion": confusion(cells.labels, given),
        "answers": dict(zip(cells.names, given.tolist(), strict=True)),
    }


def as_adata(cells: CellSet) -> ad.AnnData:
    """Return the cells as a user has them; the packaged ones are read as they are packaged."""
    if cells.name == "pbmc68k_reduced":
        return ad.read_h5ad(packaged_cells())[list(cells.names)].copy()
    found = ad.AnnData(cells.counts, pd.DataFrame(index=pd.Index(cells.names)))
    found.var_names = list(cells.genes.words)
    return found


def right(found: Labels, truth: Labels) -> float:
    return float(np.mean(found == truth))


def mean_score(answers: Sequence[Any], chosen: npt.NDArray[np.bool_]) -> float:
    scores = np.exp([one.logprob for one in answers])[chosen]
    return float(scores.mean()) if len(scores) else float("nan")


def confusion(truth: Labels, given: Labels) -> dict[str, dict[str, int]]:
    """Count given labels per true label, leaving zeros out."""
    return {str(label): dict(Counter(given[truth == label].tolist())) for label in sorted(set(truth))}


def written(model: TextModel, split: Split) -> dict[str, Any]:
    """Let the model write cells of some types, and compare their genes with those of real cells.

    What a written cell is most like is the type with whose held-out cells it shares most of its first 30 genes.
    """
    genes = split.train.genes
    found: dict[str, Any] = {}
    for label in WRITTEN:
        cells, _ = write_cells(
            model, COPIES, genes, Inverse(-0.5, 1.5), cell_type=label, sampling=Sampling(0.9, 0.7, 0), batch_size=COPIES
        )
        texts = cells.obs["cell_sentence"].tolist()
        words = [text.split() for text in texts]
        near = {other: likeness(words, real_sentences(split.held_out, other, genes)) for other in WRITTEN}
        found[label] = {
            "cells": COPIES,
            "genes_per_cell": float(np.mean([len(one) for one in words])),
            "share_of_words_that_are_genes": float(np.mean([w in genes.index for one in words for w in one])),
            "share_of_words_that_repeat": float(np.mean([1 - len(set(one)) / len(one) for one in words if one])),
            "share_of_different_cells": len(set(texts)) / len(texts),
            "first_genes": [gene for gene, _ in Counter(w for one in words for w in one[:SHOWN]).most_common(SHOWN)],
            "overlap_with_real_cells_of": near,
            "nearest": max(near, key=near.__getitem__),
            "example": texts[0],
        }
    return found


def real_sentences(cells: CellSet, label: str, genes: SentenceGenes) -> list[list[str]]:
    """Return the words of the held-out cells of a type by falling counts."""
    rows = cells.counts[np.flatnonzero(cells.labels == label)]
    return [[genes.words[i] for i in one.indices[np.argsort(-one.data, kind="stable")]][:100] for one in rows]


def likeness(ours: Sequence[Sequence[str]], real: Sequence[Sequence[str]]) -> float:
    """Return the mean share of the first 30 genes that a written and a real cell have in common."""
    return float(np.mean([len(set(a[:30]) & set(b[:30])) / 30 for a in ours for b in real]))


def as_markdown(result: dict[str, Any]) -> str:
    """Lay the result out as tables."""
    names = ["majority", "nearest_centroid", "logistic_regression", "logistic_regression_on_sentences"]
    lines = [
        "| held-out cells | types | from the list | free | " + " | ".join(n.replace("_", " ") for n in names) + " |"
    ]
    lines.append("|---|---|---|---|" + "---|" * len(names))
    for name, one in result["sets"].items():
        shares = [one["accuracy_listed"], one["accuracy_free"], *(one["yardsticks"][n] for n in names)]
        said = " | ".join(f"{100 * share:.1f} %" for share in shares)
        lines.append(f"| {name}, {one['cells']} (trained on {one['trained_on']}) | {one['types']} | {said} |")
    first = next(iter(result["sets"].values()))
    lines += ["", "| true type (first set) | answers |", "|---|---|"]
    for label, row in first["confusion"].items():
        lines.append(
            f"| {label} | " + ", ".join(f"{n} {x}" for x, n in sorted(row.items(), key=lambda r: -r[1])) + " |"
        )
    lines += [
        "",
        f"| asked for ({COPIES} cells each) | genes | repeats | most like real | commonest among the first {SHOWN} |",
    ]
    lines.append("|---|---|---|---|---|")
    for label, one in result["written"].items():
        sizes = f"{one['genes_per_cell']:.0f} | {100 * one['share_of_words_that_repeat']:.1f} %"
        lines.append(f"| {label} | {sizes} | {one['nearest']} | {' '.join(one['first_genes'])} |")
    return "\n".join(lines)


def cpu_name() -> str:
    """Return the processor's name where the system gives it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of zheng68k.h5ad")
    parser.add_argument("--bundle", default="demo-c2s")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    splits = load(options.data)
    model = TextModel(open_bundle(named_bundle(options.bundle)))
    result = {
        "bundle_hash": model.bundle.hash,
        "genes_per_sentence": model.num_genes,
        "type_names": BLOOD,
        "sets": {name: of_set(model, split) for name, split in splits.items()},
        "written": written(model, splits["pbmc68k_reduced"]),
        "hardware": {"cpu": cpu_name(), "cores": os.cpu_count(), "device": model.device},
        "versions": versions(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(as_markdown(result) + "\n", encoding="utf-8")
    print(as_markdown(result))


if __name__ == "__main__":
    main()
