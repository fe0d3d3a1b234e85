"""Tokenizers of BERT, from tokenizer.json or from the older vocab.txt."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.weights import read_json

_CLS, _SEP, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
_LONGEST_WORD = 100  # as in BERT's own code: a longer word is unknown


def read_wordpiece(folder: Path) -> Tokenizer:
    """Read the tokenizer of a folder, without truncation and padding.

    Raises
    ------
    CheckpointError
        When there is none, or it marks texts otherwise than BERT.
    """
    if (folder / "tokenizer.json").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{folder / 'tokenizer.json'} cannot be read ({error}); save it again.") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
    elif (folder / "vocab.txt").is_file():
        tokenizer = _of_words(folder)
    else:
        raise CheckpointError(
            f"{folder} has no tokenizer.json or vocab.txt; give the folder of the text encoder's tokenizer "
            "(--tokenizer), which for LangCell is that of PubMedBERT."
        )
    tokens = tokenizer.encode("a").tokens
    if len(tokens) < 3 or tokens[0] != _CLS or tokens[-1] != _SEP:
        raise CheckpointError(f"{folder} has a tokenizer that does not put texts between {_CLS} and {_SEP}.")
    return tokenizer


def _of_words(folder: Path) -> Tokenizer:
    try:
        words = (folder / "vocab.txt").read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / 'vocab.txt'} cannot be read ({error}); copy it again.") from error
    ids = {word: i for i, word in enumerate(words)}
    missing = [word for word in (_CLS, _SEP, _UNKNOWN) if word not in ids]
    if missing:
        raise CheckpointError(f"{folder / 'vocab.txt'} has no {missing[0]}; take the vocabulary of a BERT.")
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    accents = config.get("strip_accents")
    return wordpiece(
        ids,
        lowercase=bool(config.get("do_lower_case", True)),
        strip_accents=None if accents is None else bool(accents),
        splits_chinese=bool(config.get("tokenize_chinese_chars", True)),
    )


def wordpiece(
    ids: dict[str, int], *, lowercase: bool = True, strip_accents: bool | None = None, splits_chinese: bool = True
) -> Tokenizer:
    """Make BERT's tokenizer of a vocabulary; `strip_accents` None does so where letters become lower-case."""
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=_UNKNOWN, max_input_chars_per_word=_LONGEST_WORD))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=splits_chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_CLS} $A {_SEP}", special_tokens=[(_CLS, ids[_CLS]), (_SEP, ids[_SEP])]
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([word for word in (_CLS, _SEP, _UNKNOWN, "[PAD]", "[MASK]") if word in ids])
    return tokenizer
