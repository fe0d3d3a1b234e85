"""The golden LangCell as a bundle, and its inputs and values."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np


def golden_checkpoint(shared: Path, folder: Path) -> Path:
    """Copy the golden checkpoint with its tokenizer, and with dictionaries of as many genes as it has tokens for."""
    source = shared / "fixtures" / "langcell_model"
    shutil.copytree(source / "ckpt", folder)
    shutil.copytree(source / "tokenizer", folder / "tokenizer")
    size = json.loads((folder / "cell_bert" / "config.json").read_text())["vocab_size"]
    tokens, medians = (
        json.loads((shared / "fixtures" / "data" / "langcell" / f"{name}_dictionary.json").read_text())
        for name in ("token", "gene_median")
    )
    tokens = {name: token for name, token in tokens.items() if token < size - 1}
    (folder / "token_dictionary.json").write_text(json.dumps(tokens))
    (folder / "gene_median_dictionary.json").write_text(json.dumps({k: medians[k] for k in tokens if k in medians}))
    return folder


class GoldenLangCell:
    """Inputs and expected values of the fixture ``langcell_model``."""

    def __init__(self, shared: Path) -> None:
        folder = shared / "fixtures" / "langcell_model"
        self.inputs, self.expected = (dict(np.load(folder / f"{name}.npz")) for name in ("inputs", "expected"))
        self.texts: list[str] = json.loads((folder / "texts.json").read_text())["texts"]

    def cells(self) -> list[np.ndarray]:
        """Tokens of every cell."""
        lengths = self.inputs["cell_lengths"].tolist()
        return [
            row[:length].astype(np.int64) for row, length in zip(self.inputs["cell_input_ids"], lengths, strict=True)
        ]

    def text_tokens(self) -> list[np.ndarray]:
        """Tokens of every text."""
        lengths = self.inputs["text_lengths"].tolist()
        return [
            row[:length].astype(np.int64) for row, length in zip(self.inputs["text_input_ids"], lengths, strict=True)
        ]
