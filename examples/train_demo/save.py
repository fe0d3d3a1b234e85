"""Write the trained pair as a LingoCell checkpoint folder, which ``cellscribe export`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from binning import N_BINS
from tokenizers import Tokenizer
from tokens import END, PROMPT, START

from cellscribe.engine.cells.spec import CellInput
from cellscribe.export.checkpoint.lingocell import save_cross_attention, write_about
from cellscribe.export.checkpoint.write import write_llama, write_scgpt
from cellscribe.export.models.lingocell import LingoDecoder
from cellscribe.export.models.scgpt import ScgptEncoder


def save(
    folder: Path, encoder: ScgptEncoder, decoder: LingoDecoder, tokenizer: Tokenizer, genes: Sequence[str]
) -> None:
    """Write encoder/, decoder/, cross_attention.safetensors and lingocell.json."""
    assert decoder.cross_config is not None
    write_scgpt(folder / "encoder", encoder, ("<cls>", *genes, "<pad>", "<eoc>"))
    write_llama(folder / "decoder", decoder, tokenizer.to_str(), bos_id=START, eos_id=END)
    save_cross_attention(decoder, folder / "cross_attention.safetensors")
    cells = CellInput("fixed", "list", len(genes), n_bins=N_BINS, cls_value=0.0)
    write_about(folder, decoder.cross_config, cells, list(genes), PROMPT)
