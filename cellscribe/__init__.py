"""Cellscribe: fast inference for single-cell language models.

>>> import cellscribe as cs
>>> model = cs.load("demo")                      # or a bundle folder
>>> frame = model.describe(adata)                # one row per cell; adata.obs["cellscribe_description"]
>>> vectors = model.embed(adata)                 # adata.obsm["X_cellscribe"]
>>> for piece in model.stream(adata[0]):         # text as it is generated
...     print(piece.text, end="")

Of the family c2s, which reads cells as sentences (:class:`SentenceModel`):

>>> model = cs.load("C2S_BUNDLE")
>>> frame = model.annotate(adata, labels=["B cell", "T cell", "monocyte"])
>>> answers = model.ask(adata, "Is this cell dividing?")
>>> cells = model.generate("B cell", n=100, like=adata)

Of the family langcell, which labels cells by texts it was never trained on (:class:`MatchModel`):

>>> model = cs.load("LANGCELL_BUNDLE")
>>> frame = model.annotate(adata, labels="labels.obo", definitions=True)
>>> index = model.index("atlas.h5ad", "atlas.index", columns=["tissue"])     # later: cs.open_index("atlas.index")
>>> found = model.search(index, ["a B cell that makes antibodies"])

Of the family instructcell, which follows instructions (:class:`DialogueModel`):

>>> model = cs.load("INSTRUCTCELL_BUNDLE")
>>> answers = model.ask(adata, "Which cell type is this?")
>>> frame = model.annotate(adata, labels=["B cell", "T cell"], fields={"tissue": "blood"})
>>> cells = model.generate("B cell", n=500, fields={"tissue": "blood"})

Names are imported when first used, so ``import cellscribe`` is quick.
"""

from __future__ import annotations

from pathlib import Path as _Path
from typing import TYPE_CHECKING

if not (_Path(__file__).parent / "engine").is_dir():  # in a checkout its subpackages lie beside it, in a wheel inside
    __path__.append(str(_Path(__file__).parents[1]))

if TYPE_CHECKING:
    from cellscribe.engine.dialogue_model import DialogueModel
    from cellscribe.engine.errors import CellscribeError
    from cellscribe.engine.match_model import MatchModel
    from cellscribe.engine.model import Model, load
    from cellscribe.engine.search import CellIndex, open_index
    from cellscribe.engine.sentence_model import SentenceModel
    from cellscribe.engine.types import Description, Piece, Sampling

    __version__: str

__all__ = [
    "CellIndex",
    "CellscribeError",
    "Description",
    "DialogueModel",
    "MatchModel",
    "Model",
    "Piece",
    "Sampling",
    "SentenceModel",
    "__version__",
    "load",
    "open_index",
]

_HOME = {
    "CellIndex": "cellscribe.engine.search",
    "CellscribeError": "cellscribe.engine.errors",
    "Description": "cellscribe.engine.types",
    "DialogueModel": "cellscribe.engine.dialogue_model",
    "MatchModel": "cellscribe.engine.match_model",
    "Model": "cellscribe.engine.model",
    "Piece": "cellscribe.engine.types",
    "Sampling": "cellscribe.engine.types",
    "SentenceModel": "cellscribe.engine.sentence_model",
    "load": "cellscribe.engine.model",
    "open_index": "cellscribe.engine.search",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("cellscribe")
    if name not in _HOME:
        raise AttributeError(f"module 'cellscribe' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
