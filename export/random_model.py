"""Models of known shapes with random weights: for benchmarks and tests, where only sizes matter."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from cellscribe.engine.cells.gene_names import id_by_symbol
from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.errors import UsageError
from cellscribe.export.models.lingocell import CrossConfig, DecoderConfig, LingoDecoder
from cellscribe.export.models.scgpt import ScgptConfig, ScgptEncoder
from cellscribe.export.parts import Parts
from cellscribe.export.prompt import Prompt
from cellscribe.export.reference_cells import packaged_genes

SPECIALS = ("<unk>", "<s>", "</s>")
_HEAD_SPREAD = 2.0  # standard deviation of the logits: near-ties would make greedy comparisons meaningless


@dataclass(frozen=True)
class Shape:
    """Sizes of a LingoCell; `num_genes` genes are fed per cell."""

    num_genes: int
    d_encoder: int
    n_encoder_layers: int
    n_encoder_heads: int
    d_encoder_ffn: int
    decoder: DecoderConfig
    cross: CrossConfig


SHAPES = {
    "lingocell-1.1b": Shape(
        1200, 512, 12, 8, 512, DecoderConfig(32000), CrossConfig(n_layers=12, n_heads=32, n_kv_heads=32, d_memory=512)
    ),
    "lingocell-1.1b-gqa": Shape(
        1200, 512, 12, 8, 512, DecoderConfig(32000), CrossConfig(n_layers=12, n_heads=32, n_kv_heads=4, d_memory=512)
    ),
    # The widths of the 1.1 billion model in two layers: what a builder must take, in a hundredth of the time.
    "lingocell-1.1b-slice": Shape(
        1200,
        512,
        1,
        8,
        512,
        DecoderConfig(32000, n_layers=2),
        CrossConfig(n_layers=1, n_heads=32, n_kv_heads=32, d_memory=512),
    ),
    "lingocell-tiny": Shape(
        60,
        64,
        2,
        4,
        96,
        DecoderConfig(600, d_model=64, n_layers=4, n_heads=4, n_kv_heads=2, d_ffn=96, max_positions=768),
        CrossConfig(n_layers=2, n_heads=4, n_kv_heads=4, d_memory=64, bias=True),
    ),
}


def random_parts(shape: str, seed: int) -> Parts:
    """Return a model of a known shape with random weights drawn from `seed`.

    Raises
    ------
    UsageError
        When the shape is not known.
    """
    if shape not in SHAPES:
        raise UsageError(f"shape {shape!r} is not known; choose {', '.join(SHAPES)}.")
    sizes, generator = SHAPES[shape], torch.Generator().manual_seed(seed)
    genes = _input_genes(sizes.num_genes)
    tokens = ("<pad>", "<cls>", *genes)
    encoder_config = ScgptConfig(
        len(tokens), sizes.d_encoder, sizes.n_encoder_layers, sizes.n_encoder_heads, sizes.d_encoder_ffn
    )
    with torch.device("meta"):
        encoder, decoder = ScgptEncoder(encoder_config), LingoDecoder(sizes.decoder, sizes.cross)
    for module in (encoder, decoder):
        module.to_empty(device="cpu").requires_grad_(False)
        _fill(module, generator)
    decoder.restore_tables()
    tokenizer, prompt = random_tokenizer(sizes.decoder.vocab_size), Prompt.chat()
    return Parts(
        "lingocell",
        encoder.eval(),
        tokens,
        CellInput("fixed", "list", sizes.num_genes, cls_value=0.0),
        genes,
        decoder.eval(),
        tokenizer.to_str(),
        prompt,
        prompt.token_ids(tokenizer, SPECIALS.index("<s>")),
        (SPECIALS.index("</s>"),),
        notes=f"random weights (shape {shape}, seed {seed}): for measuring speed, its texts mean nothing",
    )


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    for name, parameter in module.named_parameters():
        if name.endswith("head.weight"):
            parameter.data.normal_(std=_HEAD_SPREAD / parameter.shape[0] ** 0.5, generator=generator)
        elif parameter.ndim > 1:
            parameter.data.normal_(
                std=parameter.shape[-2] ** -0.5 if "embedding" not in name else 1.0, generator=generator
            )
        else:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)


def _input_genes(count: int) -> tuple[str, ...]:
    """The packaged cells' genes first, so that they and other blood cells match; then others by name."""
    packaged = packaged_genes()
    known = set(packaged)
    return tuple((*packaged, *(g for g in id_by_symbol() if g not in known))[:count])


def random_tokenizer(size: int) -> Tokenizer:
    """Return a byte-level BPE that knows the prompt's words, filled up to `size` with numbered words."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=min(size, 580), special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([Prompt.chat().text.replace("</s>", "")] * 8, trainer)
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for number in range(len(vocabulary), size):
        vocabulary[f"Ġw{number}"] = number
    return Tokenizer.from_str(json.dumps(state))
