"""What a bundle is made of, whichever checkpoint it came from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

from cellscribe.engine.bundle import load as names
from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.errors import CheckpointError, UsageError
from cellscribe.export.checkpoint.lingocell import read_lingocell
from cellscribe.export.checkpoint.scgpt import read_scgpt
from cellscribe.export.checkpoint.weights import read_json
from cellscribe.export.models.lingocell import CrossAttention, LingoDecoder
from cellscribe.export.models.scgpt import ScgptEncoder
from cellscribe.export.prompt import Prompt

FAMILIES = ("lingocell", "scgpt", "c2s", "langcell", "geneformer")


@dataclass
class Parts:
    """An encoder with its vocabulary, and a decoder with its tokenizer and prompt unless the encoder stands alone."""

    family: str
    encoder: ScgptEncoder
    tokens: tuple[str, ...]
    cells: CellInput
    input_genes: tuple[str, ...] | None = None
    decoder: LingoDecoder | None = None
    tokenizer_json: str = ""
    prompt: Prompt | None = None
    prompt_ids: list[int] = field(default_factory=list)
    eos_ids: tuple[int, ...] = ()
    form: Literal["latent", "materialised"] = "latent"
    notes: str = ""

    @property
    def first_cross(self) -> CrossAttention | None:
        """The first cross-attention block."""
        layers = self.decoder.blocks if self.decoder is not None else []
        found: CrossAttention | None = next((layer.cross for layer in layers if layer.cross is not None), None)
        return found

    @property
    def needs_cross_graph(self) -> bool:
        """Whether the decoder reads something else than the memory as the encoder gives it."""
        block = self.first_cross
        return block is not None and (self.form == "materialised" or block.memory_norm is not None)

    def texts(self) -> dict[str, str]:
        """Return the text files of the bundle."""
        genes = {
            "tokens": list(self.tokens),
            "ensembl": None,
            "input_genes": list(self.input_genes) if self.input_genes else None,
        }
        files = {names.GENES: json.dumps(genes, ensure_ascii=False)}
        if self.decoder is not None:
            files[names.TOKENIZER] = self.tokenizer_json
        return files

    def release(self) -> None:
        """Free the weights; shapes stay readable."""
        self.encoder.to("meta")
        if self.decoder is not None:
            self.decoder.to("meta")


def read_parts(checkpoint: Path, family: str, key_map: Path | None) -> Parts:
    """Read a checkpoint of one of the known families."""
    if not checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint} is not a folder; point to a checkpoint folder.")
    if family == "scgpt":
        found = read_scgpt(checkpoint)
        return Parts(family, found.encoder, found.tokens, found.cells)
    if family != "lingocell":
        raise UsageError(f"family {family!r} is not known; choose {' or '.join(FAMILIES)}.")
    whole = read_lingocell(checkpoint, key_map)
    tokenizer = read_tokenizer(whole.tokenizer_file)
    bos, eos = special_ids(checkpoint / "decoder", tokenizer)
    ids = whole.prompt.token_ids(tokenizer, bos)
    _check_vocabulary(tokenizer, whole.decoder, ids, whole.tokenizer_file)
    _check_genes(whole.input_genes, whole.scgpt.tokens, whole.cells, checkpoint)
    return Parts(
        family,
        whole.scgpt.encoder,
        whole.scgpt.tokens,
        whole.cells,
        whole.input_genes,
        whole.decoder,
        tokenizer.to_str(),
        whole.prompt,
        ids,
        eos,
    )


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizers file."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; save the tokenizer as tokenizer.json in the decoder folder.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path} cannot be read ({error}); save the tokenizer again.") from error
    tokenizer.no_truncation()  # what training left there would cut sentences, or fill them up
    tokenizer.no_padding()
    return tokenizer


def special_ids(folder: Path, tokenizer: Tokenizer) -> tuple[int | None, tuple[int, ...]]:
    """Return the beginning-of-text id and the end-of-text ids, as the model's configuration gives them."""
    config = read_json(folder / "config.json")
    if (folder / "generation_config.json").is_file():
        config |= {
            k: v
            for k, v in read_json(folder / "generation_config.json").items()
            if k == "eos_token_id" and v is not None
        }
    eos = config.get("eos_token_id")
    if eos is None:
        eos = tokenizer.token_to_id("</s>")
    if eos is None:
        raise CheckpointError(f"{folder}/config.json gives no eos_token_id; add it, or no text would ever end.")
    bos = config.get("bos_token_id")
    return (None if bos is None else int(bos)), tuple(eos) if isinstance(eos, list) else (int(eos),)


def _check_vocabulary(tokenizer: Tokenizer, decoder: LingoDecoder, prompt_ids: list[int], path: Path) -> None:
    size = decoder.config.vocab_size
    if tokenizer.get_vocab_size() > size:
        raise CheckpointError(
            f"{path} has {tokenizer.get_vocab_size()} tokens where the decoder has {size}; "
            "take the tokenizer it was trained with."
        )
    if len(prompt_ids) < 2:
        raise CheckpointError(f"{path} turns the prompt into {len(prompt_ids)} tokens; give a longer prompt.")
    if len(prompt_ids) + 256 > decoder.config.max_positions:
        raise CheckpointError(
            f"the prompt has {len(prompt_ids)} tokens, which with 256 new ones goes beyond the decoder's "
            f"{decoder.config.max_positions} positions; shorten the prompt."
        )


def _check_genes(genes: tuple[str, ...] | None, tokens: tuple[str, ...], cells: CellInput, folder: Path) -> None:
    if cells.selection != "list":
        return
    if not genes:
        raise CheckpointError(f"{folder}/lingocell.json selects genes by list but gives no input_genes; add them.")
    unknown = [g for g in genes if g not in set(tokens)]
    if unknown:
        raise CheckpointError(
            f"{folder}/lingocell.json: {len(unknown)} input gene(s) are not in the vocabulary, first {unknown[0]}; "
            "correct the list."
        )
    if len(genes) != cells.num_genes and cells.layout == "fixed":
        raise CheckpointError(
            f"{folder}/lingocell.json lists {len(genes)} input genes where cells.num_genes is {cells.num_genes}; "
            "make them equal."
        )
