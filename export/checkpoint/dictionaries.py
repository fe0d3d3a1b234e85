"""Token and median dictionaries of Geneformer and LangCell: JSON, or pickles of plain numbers and text."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from cellscribe.engine.cells.vocabulary import GeneVocabulary
from cellscribe.engine.errors import CheckpointError
from cellscribe.engine.ranks.genes import packaged_dictionaries, rank_vocabulary
from cellscribe.export.checkpoint.weights import read_json

_TOKENS, _MEDIANS = "token_dictionary", "gene_median_dictionary"
# What pickles of NumPy numbers are made of, in NumPy 1 and 2.
_ALLOWED = {("numpy", "dtype"), ("_codecs", "encode")} | {
    (f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("scalar", "_reconstruct")
}


def read_rank_vocabulary(folder: Path | None) -> GeneVocabulary:
    """Return the genes of the dictionaries in a folder; those that come with the package where it has none.

    A folder holds ``token_dictionary*`` and ``gene_median_dictionary*``, each ``.json`` or ``.pkl``.

    Raises
    ------
    CheckpointError
        When one of the two is missing, there are several, or one holds something else.
    """
    found = None if folder is None else (_find(folder, _TOKENS), _find(folder, _MEDIANS))
    if found is None or found == (None, None):
        return rank_vocabulary(*packaged_dictionaries())
    tokens_file, medians_file = found
    if tokens_file is None or medians_file is None:
        missing = _TOKENS if tokens_file is None else _MEDIANS
        raise CheckpointError(f"{folder} has no {missing}.json or .pkl; give both dictionaries, or neither.")
    tokens, medians = _read(tokens_file), _read(medians_file)
    try:
        return rank_vocabulary(
            {str(name): int(token) for name, token in tokens.items()},
            {str(name): float(median) for name, median in medians.items()},
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{tokens_file} does not name tokens ({error}); take the training file.") from error


def _find(folder: Path, stem: str) -> Path | None:
    found = sorted(path for path in folder.glob(f"{stem}*") if path.suffix in (".json", ".pkl", ".pickle"))
    if len(found) > 1:
        raise CheckpointError(f"{folder} has {found[0].name} and {found[1].name}; leave the one of the model there.")
    return found[0] if found else None


def _read(path: Path) -> dict[Any, Any]:
    value = read_json(path) if path.suffix == ".json" else _read_pickle(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is no dictionary; take the training file.")
    return value


class _Plain(pickle.Unpickler):
    """Reads numbers, text and dictionaries; anything else that a pickle asks for is refused before it runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _Plain(file).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} holds more than names and numbers ({error}); save it as JSON with json.dump."
        ) from error


__all__ = ["read_rank_vocabulary"]
