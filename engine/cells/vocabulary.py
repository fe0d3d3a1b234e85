"""The gene vocabulary of a bundle (genes.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from cellscribe.engine.errors import BundleError

CLS, PAD, EOS = "<cls>", "<pad>", "<eos>"


@dataclass(frozen=True)
class GeneVocabulary:
    """Genes a model knows.

    Parameters
    ----------
    tokens
        Token of every id [V], "<pad>" and "<cls>" among them; symbols or Ensembl ids.
    ensembl
        Ensembl id of every token where known, or None.
    input_genes
        The bundle's own genes (tokens), for bundles that feed a fixed list; None otherwise.
    medians
        Of the non-zero expression of every token [V], 0 for what is no gene; for bundles that read ranks.

    Raises
    ------
    BundleError
        When tokens repeat, "<cls>" or "<pad>" is missing, or the lists contradict each other.
    """

    tokens: tuple[str, ...]
    ensembl: tuple[str | None, ...] | None = None
    input_genes: tuple[str, ...] | None = None
    medians: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(set(self.tokens)) != len(self.tokens):
            raise BundleError("The gene vocabulary has a token twice; export the bundle again.")
        missing = [token for token in (CLS, PAD) if token not in self.index]
        if missing:
            raise BundleError(f"The gene vocabulary has no {missing[0]} token; export the bundle again.")
        if self.ensembl is not None and len(self.ensembl) != len(self.tokens):
            raise BundleError("The gene vocabulary has not one Ensembl entry per token; export the bundle again.")
        if self.medians is not None and len(self.medians) != len(self.tokens):
            raise BundleError("The gene vocabulary has not one median per token; export the bundle again.")
        unknown = [gene for gene in self.input_genes or () if gene not in self.index]
        if unknown:
            raise BundleError(f"The input gene {unknown[0]!r} is not in the gene vocabulary; export the bundle again.")

    @cached_property
    def index(self) -> dict[str, int]:
        """Token id of every token."""
        return {token: number for number, token in enumerate(self.tokens)}

    @property
    def cls_id(self) -> int:
        """Token id of "<cls>"."""
        return self.index[CLS]

    @property
    def pad_id(self) -> int:
        """Token id of "<pad>"."""
        return self.index[PAD]

    @cached_property
    def by_ensembl(self) -> dict[str, int]:
        """Token id of every known Ensembl id (without version)."""
        pairs = enumerate(self.ensembl or ())
        return {name.split(".")[0]: number for number, name in pairs if name}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read genes.json; BundleError when it is not one."""
        try:
            stored: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8-sig"))
            tokens = tuple(stored["tokens"])
            ensembl, genes, medians = (stored.get(name) for name in ("ensembl", "input_genes", "medians"))
            known = None if medians is None else tuple(map(float, medians))
            if not all(isinstance(token, str) for token in tokens):
                raise TypeError("tokens are not text")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path} is not a gene vocabulary ({error}); export the bundle again.") from error
        return cls(tokens, None if ensembl is None else tuple(ensembl), None if genes is None else tuple(genes), known)

    def save(self, path: str | Path) -> None:
        """Write genes.json."""
        stored: dict[str, Any] = {"tokens": self.tokens, "ensembl": self.ensembl, "input_genes": self.input_genes}
        if self.medians is not None:
            stored["medians"] = self.medians
        Path(path).write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
