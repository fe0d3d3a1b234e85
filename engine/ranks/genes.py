"""Tokens and medians of genes.

``data/geneformer_30m.tsv.gz`` holds, in the order of their tokens, the 25,424 genes of Geneformer's first dictionaries
(Theodoris et al., Nature 2023) with the median of their non-zero expression; LangCell uses them, too (MIT, see
THIRD_PARTY.md).
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from cellscribe.engine.cells.vocabulary import CLS, PAD, GeneVocabulary

MASK = "<mask>"
_PACKAGED = Path(__file__).parent / "data" / "geneformer_30m.tsv.gz"
_PREFIX = "ENSG"


def write_packaged(tokens: Mapping[str, int], medians: Mapping[str, float]) -> None:
    """Make the packaged table anew from the two dictionaries: a gene a line, its id without ENSG and its median."""
    genes = sorted((name for name in tokens if not name.startswith("<")), key=tokens.__getitem__)
    if [tokens[name] for name in genes] != list(range(2, 2 + len(genes))):
        raise ValueError("tokens of genes do not follow <pad> and <mask> one by one")
    lines = [f"{name.removeprefix(_PREFIX)}\t{medians[name]!r}\n" for name in genes]
    _PACKAGED.write_bytes(gzip.compress("".join(lines).encode(), compresslevel=9, mtime=0))


@lru_cache(maxsize=1)
def packaged_dictionaries() -> tuple[dict[str, int], dict[str, float]]:
    """Return the tokens (``<pad>`` and ``<mask>`` among them) and the medians of the packaged genes."""
    lines = (line.split("\t") for line in gzip.decompress(_PACKAGED.read_bytes()).decode().splitlines())
    medians = {f"{_PREFIX}{rest}": float(median) for rest, median in lines}
    names = (PAD, MASK, *medians)
    return {name: token for token, name in enumerate(names)}, medians


def rank_vocabulary(tokens: Mapping[str, int], medians: Mapping[str, float]) -> GeneVocabulary:
    """Return the vocabulary of two dictionaries.

    ``<cls>`` takes the token after the last one where the dictionary has none, as LangCell does.

    Raises
    ------
    ValueError
        When tokens leave gaps, ``<pad>`` is missing, or no gene has a median above zero.
    """
    named = dict(tokens)
    named.setdefault(CLS, len(named))
    by_token = {token: name for name, token in named.items()}
    if sorted(by_token) != list(range(len(named))):
        raise ValueError("its tokens are not the numbers from 0 on, each once")
    names = tuple(by_token[token] for token in range(len(named)))
    if PAD not in named:
        raise ValueError(f"it has no {PAD}")
    found = tuple(float(medians.get(name, 0.0)) for name in names)
    if not any(one > 0 for one in found):
        raise ValueError("none of its genes has a median")
    return GeneVocabulary(names, medians=found)
