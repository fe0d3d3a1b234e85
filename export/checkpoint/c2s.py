"""What a folder of a C2S model can say besides its configuration and weights."""

from __future__ import annotations

from pathlib import Path

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.weights import read_json

NUM_GENES = 200  # of a sentence, where a checkpoint does not say
FILE = "c2s.json"


def read_habits(folder: Path) -> tuple[int, str]:
    """Return how many genes a sentence had in training, and notes for the bundle.

    They stand in ``c2s.json``, ``{"num_genes": 100, "notes": "..."}``, an addition of ours; a folder without it has
    200 genes and no notes.

    Raises
    ------
    CheckpointError
        When the file holds something else.
    """
    path = folder / FILE
    raw = read_json(path) if path.is_file() else {}
    num_genes, notes = (raw.get("num_genes", NUM_GENES), raw.get("notes", "")) if isinstance(raw, dict) else (0, "")
    if type(num_genes) is not int or num_genes < 1 or not isinstance(notes, str):
        raise CheckpointError(
            f'{path} must be {{"num_genes": a whole number, "notes": text}}; write it so, or remove it.'
        )
    return num_genes, notes
