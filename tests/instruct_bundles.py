"""The golden InstructCell: its checkpoint's genes, prompts, cells and expected values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from cellscribe.engine.backends.instruct import ExpressedCell

CASES = ("annot", "cpcg", "mixed", "single_annot")
FRAME = ("User:\n", "\n\nAssistant:\n")
CELL = "<CELL><CELL0></CELL>"


@dataclass(frozen=True)
class GoldenCase:
    """One call of upstream's generate: framed prompts with what they wrote, counts [C, G], and arrays."""

    prompts: tuple[str, ...]
    has_cell: tuple[bool, ...]
    texts: tuple[str, ...]
    arrays: dict[str, Any]

    @property
    def instructions(self) -> tuple[str, ...]:
        """The prompts without their frame, with ``{cell}``."""
        return tuple(one.removeprefix(FRAME[0]).removesuffix(FRAME[1]).replace(CELL, "{cell}") for one in self.prompts)

    @property
    def cells(self) -> list[ExpressedCell]:
        """The cells in the order of the prompts that have one."""
        return [expressed(row) for row in self.arrays.get("preprocessed_counts", ())]

    def written(self, row: int) -> list[int]:
        """The tokens that were written, the one that ends them included."""
        ids = self.arrays["generated_ids"][row, 1:]
        return ids[: int(self.arrays["step_valid"][row].sum())].tolist()


class GoldenInstructCell:
    """The fixture ``instructcell_model``."""

    def __init__(self, shared: Path) -> None:
        self.folder = shared / "fixtures" / "instructcell_model"
        told = json.loads((self.folder / "texts.json").read_text())
        self.genes: list[str] = told["genes"]
        self.labels: list[str] = told["labels"]
        self._prompts = told["prompts"]

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's folder."""
        return self.folder / "model"

    def arrays(self, name: str) -> dict[str, Any]:
        """Expected values of a file."""
        return dict(np.load(self.folder / f"{name}.npz"))

    def case(self, name: str) -> GoldenCase:
        """One of `CASES`."""
        rows = self._prompts[name]
        return GoldenCase(
            tuple(one["prompt"] for one in rows),
            tuple(one["has_cell"] for one in rows),
            tuple(one["text_out"] for one in rows),
            self.arrays(name),
        )

    def cells(self, name: str = "annot") -> AnnData:
        """The raw counts of a case's cells."""
        counts = self.arrays(name)["input_counts"]
        names = pd.Index([f"cell_{i}" for i in range(len(counts))])
        return AnnData(counts, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=pd.Index(self.genes)))


def expressed(values: np.ndarray) -> ExpressedCell:
    """Make a cell of a row of log1p values [G]."""
    genes = np.flatnonzero(values)
    return ExpressedCell(genes.astype(np.int64), values[genes].astype(np.float32))
