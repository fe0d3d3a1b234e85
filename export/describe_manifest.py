"""From the parts of a bundle to its manifest."""

from __future__ import annotations

from cellscribe.engine.bundle.manifest import PRECISIONS, Manifest, Precision, PromptRecord
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape, EncoderShape
from cellscribe.engine.errors import UsageError
from cellscribe.export.parts import Parts


def manifest_of(parts: Parts, precision: str, name: str) -> Manifest:
    """Return the manifest, files and parity still to be filled in."""
    if precision not in ("fp32", "fp16"):
        raise UsageError(f"precision is {precision!r}; choose {', '.join(PRECISIONS)}.")
    stored: Precision = "fp16" if precision == "fp16" else "fp32"
    config = parts.encoder.config
    encoder = EncoderShape(config.d_model, config.n_layers, config.n_heads, config.d_ffn)
    if parts.decoder is None or parts.prompt is None:
        return Manifest(name, parts.family, ("embed",), stored, encoder, parts.cells, notes=parts.notes)
    return Manifest(
        name,
        parts.family,
        ("describe", "embed"),
        stored,
        encoder,
        parts.cells,
        decoder=_decoder_shape(parts),
        cross_attention=_cross_shape(parts),
        prompt=PromptRecord(parts.prompt.text, tuple(parts.prompt_ids), parts.eos_ids),
        notes=parts.notes,
    )


def _decoder_shape(parts: Parts) -> DecoderShape | None:
    if parts.decoder is None:
        return None
    c = parts.decoder.config
    return DecoderShape(
        c.vocab_size,
        c.d_model,
        c.n_layers,
        parts.decoder.n_lower,
        c.n_heads,
        c.n_kv_heads,
        c.d_head,
        c.d_ffn,
        c.max_positions,
    )


def _cross_shape(parts: Parts) -> CrossShape | None:
    block = parts.first_cross
    if block is None or parts.decoder is None or parts.decoder.cross_config is None:
        return None
    return CrossShape(
        parts.form,
        parts.decoder.cross_config.n_layers,
        block.n_heads,
        block.n_kv_heads,
        block.d_head,
        parts.encoder.config.d_model,
        parts.needs_cross_graph,
    )
