"""What the files beside a spiece.model say of tokens that are never cut into pieces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.weights import read_json

Entry = str | dict[str, Any]  # a token's text, or its text and what it does to spaces beside it

_ROLES = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # where nothing else is said
_EXTRA_IDS, _MOST_EXTRA_IDS = 100, 100_000

GARBLED = (AttributeError, KeyError, TypeError, ValueError)  # what reading such files raises where they hold nonsense


@dataclass(frozen=True)
class TokenFiles:
    """tokenizer_config.json, special_tokens_map.json and added_tokens.json of a folder, empty where they are missing.

    Everything but `of` raises one of `GARBLED` where a file holds something else.
    """

    config: dict[str, Any]
    special: dict[str, Any]
    added: dict[str, int]

    @classmethod
    def of(cls, folder: Path) -> TokenFiles:
        """Read them; CheckpointError where one is no dictionary."""
        return cls(*(_read(folder / f"{n}.json") for n in ("tokenizer_config", "special_tokens_map", "added_tokens")))

    @property
    def roles(self) -> dict[str, Entry]:
        """The tokens of padding, end and what is unknown, by role."""
        return {role: self.special.get(role) or self.config.get(role) or name for role, name in _ROLES.items()}

    @property
    def role_names(self) -> dict[str, str]:
        """The texts of these tokens, by role."""
        return {role: name_of(entry) for role, entry in self.roles.items()}

    @property
    def extra(self) -> int:
        """How many tokens stand for what is masked."""
        number = int(self.config.get("extra_ids", _EXTRA_IDS))
        if not 0 <= number <= _MOST_EXTRA_IDS:
            raise ValueError(f"{number} extra ids")
        return number

    @property
    def described(self) -> dict[int, dict[str, Any]]:
        """The tokens that newer files describe, by id."""
        return {int(i): entry for i, entry in self.config.get("added_tokens_decoder", {}).items()}

    @property
    def specials(self) -> list[Entry]:
        """What texts do not show."""
        listed = [one.get("additional_special_tokens") or [] for one in (self.special, self.config)]
        extra: list[Entry] = [f"<extra_id_{i}>" for i in range(self.extra)]
        return [*extra, *self.roles.values(), *listed[1], *listed[0]]

    def ids(self, num_pieces: int) -> dict[str, int]:
        """Return the ids of those that are no pieces, as far as they are given; the first extra id is the highest."""
        last = num_pieces + self.extra - 1
        found = {f"<extra_id_{i}>": last - i for i in range(self.extra)}
        found |= self.added | {name_of(entry): i for i, entry in self.described.items()}
        for name, i in found.items():
            if not isinstance(i, int):
                raise ValueError(f"{name} has the id {i!r}")
        return found

    def add_to(self, tokenizer: Tokenizer, num_pieces: int) -> None:
        """Add the tokens in the order of their ids, those without one last; ids that leave a gap are an error."""
        ids, entries = self.ids(num_pieces), dict[str, tuple[Entry, bool]]()
        entries |= {name: (name, False) for name in self.added}
        entries |= {name_of(one): (one, True) for one in self.specials}
        entries |= {name_of(one): (one, bool(one.get("special", False))) for one in self.described.values()}
        order = sorted(entries, key=lambda name: ids.get(name, float("inf")))
        tokenizer.add_tokens([_token(*entries[name]) for name in order])
        for name, wanted in ids.items():
            if tokenizer.token_to_id(name) != wanted:
                raise ValueError(f"{name} is to be {wanted}, and its place is {tokenizer.token_to_id(name)}")


def name_of(entry: Entry) -> str:
    """Return a token's text."""
    name = entry if isinstance(entry, str) else entry["content"]
    if not isinstance(name, str) or not name:
        raise ValueError(f"a token {name!r}")
    return name


def _token(entry: Entry, is_special: bool) -> AddedToken:
    # A token that is only named takes the spaces on both sides with it.
    said = {"lstrip": True, "rstrip": True} if isinstance(entry, str) else entry
    sides = {name: bool(said.get(name, False)) for name in ("lstrip", "rstrip", "single_word")}
    return AddedToken(name_of(entry), **sides, normalized=False, special=is_special)


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no dictionary; copy it again from its source.")
    return found
