"""What the original Cell2Sentence printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anndata import AnnData


@dataclass(frozen=True)
class Golden:
    """What the original printed."""

    vocab: dict[str, Any]
    sentences: dict[str, Any]
    benchmark: dict[str, Any]
    inverse: dict[str, Any]
    vectors: dict[str, Any]
    cells: AnnData
