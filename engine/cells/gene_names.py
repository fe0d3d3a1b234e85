"""Other names of human genes: Ensembl ids and old symbols.

``data/gene_ids.tsv.gz`` holds symbol and Ensembl id, one to one, from LangCell's gene dictionary (MIT, see
THIRD_PARTY.md); ``data/renamed_genes.tsv`` holds old and new symbols as approved by the HGNC, written by hand.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

_DATA = Path(__file__).parent / "data"
_PREFIX = "ENSG"
_DIGITS = 11


def write_gene_ids(symbol_to_id: Mapping[str, str], path: Path) -> None:
    """Write the table of symbols and Ensembl ids, sorted by symbol, ids without their prefix and leading zeros."""
    lines = [f"{symbol}\t{int(symbol_to_id[symbol].removeprefix(_PREFIX))}\n" for symbol in sorted(symbol_to_id)]
    path.write_bytes(gzip.compress("".join(lines).encode(), compresslevel=9, mtime=0))


def write_gene_ids_from(dictionary_json: Path) -> None:
    """Make the packaged table anew from LangCell's ``gene_name_id_dict`` as JSON."""
    write_gene_ids(json.loads(dictionary_json.read_text(encoding="utf-8")), _DATA / "gene_ids.tsv.gz")


@lru_cache(maxsize=1)
def id_by_symbol() -> dict[str, str]:
    """Ensembl id (without version) of every symbol."""
    text = gzip.decompress((_DATA / "gene_ids.tsv.gz").read_bytes()).decode()
    pairs = (line.split("\t") for line in text.splitlines())
    return {symbol: f"{_PREFIX}{number:0>{_DIGITS}}" for symbol, number in pairs}


@lru_cache(maxsize=1)
def symbol_by_id() -> dict[str, str]:
    """Symbol of every Ensembl id (without version)."""
    return {ensembl: symbol for symbol, ensembl in id_by_symbol().items()}


@lru_cache(maxsize=1)
def _renamed() -> dict[str, tuple[str, ...]]:
    text = (_DATA / "renamed_genes.tsv").read_text(encoding="utf-8")
    groups = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    names: dict[str, list[str]] = {}
    for group in groups:
        for name in group:
            names.setdefault(name, []).extend(other for other in group if other != name)
    return {name: tuple(others) for name, others in names.items()}


def other_symbols(symbol: str) -> Iterator[str]:
    """Yield the other symbols, old and new, of the gene `symbol`."""
    yield from _renamed().get(symbol, ())
