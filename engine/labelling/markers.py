"""Genes that tell labels apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cellscribe.engine.errors import InputError
from cellscribe.engine.labelling.expression import LabelExpression


def markers(found: LabelExpression, num_labels: int = 20, per_label: int = 3) -> dict[str, list[int]]:
    """Choose genes by label: where more of its cells express them, and more strongly, than the others do.

    The score is the difference of the shares times the difference of the means, both above zero; a gene serves one
    label only, the larger label choosing first.

    Returns
    -------
    Places of genes by label, for the `num_labels` largest labels.
    """
    total = found.num_cells.sum()
    weights = found.num_cells[:, None].astype(np.float64)
    all_means, all_shares = (found.mean * weights).sum(0), (found.share * weights).sum(0)
    others = np.maximum(total - weights, 1)
    stronger = found.mean - (all_means - found.mean * weights) / others
    more = found.share - (all_shares - found.share * weights) / others
    score = np.maximum(stronger, 0) * np.maximum(more, 0)
    taken = np.zeros(score.shape[1], bool)
    chosen: dict[str, list[int]] = {}
    for place, label in enumerate(found.labels[:num_labels]):
        order = np.argsort(-np.where(taken, 0.0, score[place]), kind="stable")[:per_label]
        genes = [int(gene) for gene in order if score[place, gene] > 0 and not taken[gene]]
        taken[genes] = True
        chosen[label] = genes
    return chosen


def places_of(genes: Mapping[str, Sequence[str]], symbols: Sequence[str], where: str) -> dict[str, list[int]]:
    """Find named marker genes among symbols, in any case; InputError when the cells have none of them."""
    place_of = {name.upper(): place for place, name in reversed(list(enumerate(symbols)))}
    chosen = {
        label: [place_of[name.upper()] for name in names if name.upper() in place_of] for label, names in genes.items()
    }
    if not any(chosen.values()):
        raise InputError(f"the cells have none of the genes in {where}; name them by their symbols.")
    return chosen


def read_markers(path: Path) -> dict[str, list[str]]:
    """Read marker genes, a JSON object ``{"B cell": ["CD79A", "MS4A1"]}``; InputError when it is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name.") from None
    except (OSError, ValueError) as error:
        raise InputError(f'{path} cannot be read ({error}); write marker genes as {{"B cell": ["CD79A"]}}.') from error
    if not isinstance(raw, dict) or not all(
        isinstance(genes, list) and all(isinstance(one, str) for one in genes) for genes in raw.values()
    ):
        raise InputError(f'{path} holds no marker genes; write them as {{"B cell": ["CD79A"]}}.')
    return raw
