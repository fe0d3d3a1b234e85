"""Sentences and genes from files, and cells made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from anndata import AnnData

from cellscribe.engine.errors import InputError
from cellscribe.engine.output.run import count, reasons_of
from cellscribe.engine.sentences.clean import clean_sentences
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.inverse import Inverse

SUFFIXES = (".tsv", ".txt", ".parquet")
_SENTENCE_COLUMNS = ("cell_sentence", "sentence", "text")
_NAME_COLUMNS = ("cell_name", "cell_id", "cell")
_EMPTY, _NO_GENE, _TOO_LOW = (
    "failed: the sentence is empty",
    "failed: none of its words is a gene",
    "failed: its genes stand at ranks for which the line gives nothing",
)
_LINE_END = re.compile(r"\r?\n")


def read_genes(path: Path) -> SentenceGenes:
    """Read genes, one a line before any tab; a first line ``gene`` is a heading. InputError where that fails.

    Below a heading with ``name``, that column has the names in their own case.
    """
    rows = [line.split("\t") for line in _text(path).splitlines() if line.strip()]
    place = 0
    if rows and rows[0][0] == "gene":
        place = rows[0].index("name") if "name" in rows[0] else 0
        rows = rows[1:]
    names = [row[place if len(row) > place else 0] for row in rows]
    if not names:
        raise InputError(f"{path} names no gene; give one a line.")
    return SentenceGenes.of(names, str(path))


def read_sentences(path: Path) -> tuple[list[str], list[str]]:
    """Read names of cells and their sentences.

    Parameters
    ----------
    path
        ``.txt``: a sentence a line, an empty one where the line is blank. ``.tsv``: a name, a tab and a sentence a
        line. ``.parquet``: columns ``cell_sentence`` (or ``sentence``, ``text``) and ``cell_name`` (or ``cell_id``,
        ``cell``).

    Raises
    ------
    InputError
        When the file cannot be read, has another ending, or holds no sentence.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} has no ending that is understood; sentences are read from {', '.join(SUFFIXES)}.")
    names, sentences = _from_parquet(path) if path.suffix == ".parquet" else _from_lines(path)
    if not any(sentences):
        raise InputError(f"{path} holds no sentence; give one a line.")
    if len(set(names)) != len(names):
        raise InputError(f"{path} names two cells alike; give each a name of its own.")
    return names, sentences


def inverted(path: Path, genes: SentenceGenes, line: Inverse, *, no_negatives: bool = True) -> tuple[AnnData, str]:
    """Return cells made of a file of sentences, and what was found in them, in words.

    X is log10(1 + normalised counts), CSR float32; obs has the sentence as it was, how many of its words are no
    genes, how many mentions of genes were merged with others, and the ``status``: "ok", or why a cell is all zeros.
    Errors as :func:`read_sentences`.
    """
    names, sentences = read_sentences(path)
    return cells_of(names, sentences, genes, line, no_negatives=no_negatives)


def cells_of(
    names: Iterable[str], sentences: list[str], genes: SentenceGenes, line: Inverse, *, no_negatives: bool = True
) -> tuple[AnnData, str]:
    """Return cells made of sentences, and what was found in them, in words; see :func:`inverted`.

    Raises
    ------
    InputError
        When no word of any sentence is a gene.
    """
    cleaned = clean_sentences(sentences, genes)
    is_blank = np.array([not one for one in sentences], dtype=bool)  # which clean as one word that is no gene
    replaced, lengths = np.where(is_blank, 0, cleaned.num_replaced), np.where(is_blank, 0, cleaned.lengths)
    num_genes = lengths - replaced
    if not num_genes.sum():
        raise InputError(
            f"no word of {count(len(sentences), 'sentence')} is one of the {len(genes.words):,} genes; give the genes "
            "of the cells that the sentences were made of."
        )
    num_words = np.fromiter((one.count(" ") + 1 if one else 0 for one in sentences), np.int64, len(sentences))
    repeats = num_words - lengths  # mentions of a gene beyond one, which were merged
    values = line.of_cleaned(cleaned, genes, no_negatives=no_negatives)
    obs = pd.DataFrame(
        {
            "cell_sentence": sentences, "num_genes": num_genes, "num_not_genes": replaced, "num_repeats": repeats,
            "status": np.select(
                [is_blank, num_genes == 0, np.diff(values.indptr) == 0], [_EMPTY, _NO_GENE, _TOO_LOW], "ok"
            ),
        },
        index=pd.Index(list(names)),
    )  # fmt: skip
    cells = AnnData(values, obs=obs, var=pd.DataFrame(index=list(genes.names)))
    cells.uns["cellscribe_inverse"] = {"slope": line.slope, "intercept": line.intercept, "values": "log10(1 + x)"}
    num_merged = int(repeats.sum())
    said = f"{int(replaced.sum()):,} of {int(num_words.sum()):,} words are no genes"
    said += f", {count(num_merged, 'repeat')} {'was' if num_merged == 1 else 'were'} merged" if num_merged else ""
    empty = int((num_genes == 0).sum())
    return cells, said + (f", {count(empty, 'sentence')} {'has' if empty == 1 else 'have'} none" if empty else "")


def empty_note(cells: AnnData) -> str:
    """Say how many cells made of sentences are all zeros, why, and name a few; empty where none is."""
    empty = [(str(name), str(why)) for name, why in cells.obs["status"].items() if why != "ok"]
    if not empty:
        return ""
    verb = "is" if len(empty) == 1 else "are"
    return f"{len(empty):,} of {count(cells.n_obs, 'cell')} {verb} all zeros (status of obs): {reasons_of(empty)}."


def _from_lines(path: Path) -> tuple[list[str], list[str]]:
    lines = _LINE_END.split(_text(path))
    lines = lines[:-1] if not lines[-1] else lines  # what ends the last line begins none
    if path.suffix == ".txt":  # cell_i is line i, from 0, whatever stands in it
        return [f"cell_{i}" for i in range(len(lines))], [line if line.strip() else "" for line in lines]
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip()]
    bad = next((i for i, line in numbered if line.count("\t") != 1), None)
    if bad is not None:
        raise InputError(f"line {bad} of {path} is not a name, a tab and a sentence; write it so, or use .txt.")
    bad = next((i for i, line in numbered if line.startswith("\t")), None)
    if bad is not None:
        raise InputError(f"line {bad} of {path} names no cell before its tab; give each cell a name, or use .txt.")
    pairs = [line.split("\t") for _, line in numbered]
    return [name for name, _ in pairs], [sentence for _, sentence in pairs]


def _from_parquet(path: Path) -> tuple[list[str], list[str]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is no readable Parquet file ({str(error).splitlines()[0]}); write it again."
        ) from error
    sentence = next((name for name in _SENTENCE_COLUMNS if name in table.column_names), None)
    if sentence is None:
        raise InputError(f"{path} has no column {' or '.join(_SENTENCE_COLUMNS)}; name the sentences so.")
    texts = table.column(sentence).to_pylist()
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"the column {sentence} of {path} holds what is no text; give a sentence a cell.")
    name = next((one for one in _NAME_COLUMNS if one in table.column_names), None)
    if name is None:
        return [f"cell_{i}" for i in range(len(texts))], texts
    found = table.column(name).to_pylist()
    if any(one is None or not str(one).strip() for one in found):
        raise InputError(
            f"the column {name} of {path} leaves a cell without a name; give each one, or drop the column."
        )
    return [str(one) for one in found], texts


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); give UTF-8.") from error
