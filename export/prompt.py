"""The fixed prompt of a LingoCell: the same text for every cell, so that its lower layers are computed once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cellscribe.engine.errors import CheckpointError

SYSTEM = (
    "You are a scientific assistant specialized in cell description predictions. Given the cell expression embeddings, "
    "describe it clearly and concisely in professional language."
)
USER = (
    "Based on the gene expression profile provided through cross-attention, describe the cell type, tissue origin, "
    "and biological state."
)


@dataclass(frozen=True)
class Prompt:
    """The prompt as one text, chat template applied; a beginning-of-text token is put before it."""

    text: str

    @classmethod
    def chat(cls, system: str = SYSTEM, user: str = USER) -> Prompt:
        """Fill TinyLlama's chat template."""
        return cls(f"<|system|>\n{system}</s>\n<|user|>\n{user}</s>\n<|assistant|>\n")

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: Path) -> Prompt:
        """Read {"text": ...} or {"system": ..., "user": ...}; an empty mapping gives the default prompt."""
        if set(values) - {"text", "system", "user"} or not all(isinstance(v, str) for v in values.values()):
            raise CheckpointError(f'{where}: the prompt must be {{"text"}} or {{"system", "user"}}, each a string.')
        if "text" in values:
            return cls(values["text"])
        return cls.chat(**values)

    def as_dict(self) -> dict[str, str]:
        """Return the form that lingocell.json keeps."""
        return {"text": self.text}

    def token_ids(self, tokenizer: Tokenizer, bos_id: int | None) -> list[int]:
        """Encode the prompt; `</s>` and other special tokens in it become their ids."""
        ids: list[int] = tokenizer.encode(self.text, add_special_tokens=False).ids
        return ids if bos_id is None else [bos_id, *ids]
