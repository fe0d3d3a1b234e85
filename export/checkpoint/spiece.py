"""spiece.model: the pieces of a SentencePiece tokenizer of the kind Unigram, and how it normalises texts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tokenizers import normalizers

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.protobuf import Message

_UNIGRAM = 1
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3
_KINDS = {4: "user-defined", 5: "unused", 6: "byte"}


@dataclass(frozen=True)
class Pieces:
    """What a text is cut into."""

    scores: tuple[tuple[str, float], ...]  # of every piece, by id
    unknown: int  # its id
    controls: tuple[str, ...]  # pieces that no text holds
    charsmap: bytes  # empty where characters stay as they are
    has_dummy_prefix: bool  # a space before the text
    drops_spaces: bool  # those at both ends, and all but one in between


def read_pieces(path: Path) -> Pieces:
    """Read a spiece.model.

    Raises
    ------
    CheckpointError
        When it is missing or damaged, or of another kind.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); copy it again from its source.") from error
    try:
        return _pieces(data, path)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy it again from its source.") from error


def _pieces(data: bytes, path: Path) -> Pieces:
    model = Message.of(data)
    trainer, normalizer = Message.of(model.data(2)), Message.of(model.data(3))
    if trainer.number(3, _UNIGRAM) != _UNIGRAM or not normalizer.number(5, 1):
        raise CheckpointError(f"{path} is no Unigram model that marks spaces; take that of a T5.")
    found = [_piece(Message.of(one)) for one in model.each(1)]
    unknowns = [i for i, (_, _, kind) in enumerate(found) if kind == _UNKNOWN]
    if len(unknowns) != 1:
        raise ValueError(f"{len(unknowns)} of its {len(found)} pieces stand for what is unknown, where one must")
    others = {kind for _, _, kind in found} - {_NORMAL, _UNKNOWN, _CONTROL}
    if others:
        kind = _KINDS.get(min(others), str(min(others)))
        raise CheckpointError(f"{path} has pieces of the kind {kind}, which are not known; take that of a T5.")
    if len({name for name, _, _ in found}) < len(found):
        raise ValueError("a piece is there twice")
    _check(normalizer.data(2))
    return Pieces(
        tuple((name, score) for name, score, _ in found),
        unknowns[0],
        tuple(name for name, _, kind in found if kind == _CONTROL),
        normalizer.data(2),
        bool(normalizer.number(3, 1)),
        bool(normalizer.number(4, 1)),
    )


def _check(charsmap: bytes) -> None:
    if not charsmap:
        return
    try:
        normalizers.Precompiled(charsmap)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"its characters: {error}") from error


def _piece(piece: Message) -> tuple[str, float, int]:
    name, score = piece.data(1).decode(), piece.single(2)
    if not name or not math.isfinite(score):
        raise ValueError(f"a piece {name!r} with the score {score}")
    return name, score, piece.number(3, _NORMAL)
