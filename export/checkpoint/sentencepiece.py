"""Tokenizers of T5, from tokenizer.json or from spiece.model and the files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.added_tokens import GARBLED, TokenFiles
from cellscribe.export.checkpoint.spiece import Pieces, read_pieces

_WHOLE, _PIECES = "tokenizer.json", "spiece.model"


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the tokens that every T5 has; what is written begins after the one of padding."""

    pad: int
    end: int
    unknown: int


def read_t5_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a folder, without truncation and padding.

    From pieces, ids are those of the slow T5Tokenizer of transformers 4.33 of the older kind (`legacy`), to which what
    comes after an added token begins with a space, as a text does. They differ where an accent follows a character that
    is itself replaced, where two orders of the same pieces spell a text (`999999`), as its sums are of single
    precision, and where the text itself ends with an end. Of the newer kind, a line break after an added token is a
    space.

    Texts are decoded as the model writes them: transformers takes spaces before punctuation away where
    `clean_up_tokenization_spaces` is set, this does not.

    Raises
    ------
    CheckpointError
        When there is none, it is damaged, its files do not belong together, or it does not end texts.
    """
    if (folder / _WHOLE).is_file():
        tokenizer = _of_json(folder / _WHOLE)
    elif (folder / _PIECES).is_file():
        pieces, files = read_pieces(folder / _PIECES), TokenFiles.of(folder)
        try:
            tokenizer = tokenizer_of(pieces, files)
        except GARBLED as error:
            raise _garbled(folder, error) from error
    else:
        raise CheckpointError(f"{folder} has no {_WHOLE} or {_PIECES}; copy the tokenizer of the T5 there.")
    if tokenizer.encode("a").ids[-1:] != [special_ids(folder, tokenizer).end]:
        raise CheckpointError(f"{folder} has a tokenizer that does not end texts; take that of the T5.")
    return tokenizer


def special_ids(folder: Path, tokenizer: Tokenizer) -> SpecialIds:
    """Return the ids of a folder's special tokens.

    Raises
    ------
    CheckpointError
        When the tokenizer lacks one.
    """
    try:
        names = TokenFiles.of(folder).role_names
    except GARBLED as error:
        raise _garbled(folder, error) from error
    ids: dict[str, int] = {}
    for role, name in names.items():
        found = tokenizer.token_to_id(name)
        if found is None:
            raise CheckpointError(f"{folder} has no token {name}, its {role}; take the files of one T5.")
        ids[role] = found
    return SpecialIds(ids["pad_token"], ids["eos_token"], ids["unk_token"])


def tokenizer_of(pieces: Pieces, files: TokenFiles) -> Tokenizer:
    """Make a tokenizer of pieces and of tokens that are never cut; raises one of `GARBLED` for files that are."""
    tokenizer = Tokenizer(models.Unigram([*pieces.scores], pieces.unknown, byte_fallback=False))
    is_older = files.config.get("legacy") is not False
    tokenizer.normalizer = _normalizer(pieces, is_older)
    scheme = ("always" if is_older else "first") if pieces.has_dummy_prefix else "never"
    # The pieces of a text are those of the least cost in all: it is not split at spaces before.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always" if pieces.has_dummy_prefix else "never")
    files.add_to(tokenizer, len(pieces.scores))
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in pieces.controls])
    end = files.role_names["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return tokenizer


def _normalizer(pieces: Pieces, is_older: bool) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if pieces.charsmap:
        steps.append(normalizers.Precompiled(pieces.charsmap))
    if pieces.drops_spaces:
        ends = "^ +| +$" if is_older else " +$"  # spaces after an added token count for the newer kind
        steps += [normalizers.Replace(Regex(ends), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    return normalizers.Sequence(steps)


def _of_json(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path} cannot be read ({error}); save it again.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _garbled(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{folder} garbles its special or added tokens ({error}); copy those files again.")
