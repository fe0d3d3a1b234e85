"""Whether the graphs of a bundle are those its manifest describes, before anything is allocated by its word."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from cellscribe.engine.backends.instruct import InstructShapes, instruct_shapes
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, PROFILE, TOWER, Bundle
from cellscribe.engine.bundle.manifest import Manifest
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape
from cellscribe.engine.errors import BundleError

Shape = list[Any]  # numbers, and names of axes that vary
Arrays = dict[str, npt.NDArray[np.generic]]


def attended_shapes(cross: CrossShape) -> dict[str, Shape]:
    """Return what the decoder attends to: the memory, or keys and values of each cross layer in turn."""
    if cross.form == "latent":
        return {"memory": [None, None, cross.d_memory]}
    each = [None, cross.n_kv_heads, None, cross.d_head]
    return {f"cross_{part}.{i}": each for i in range(cross.n_layers) for part in ("key", "value")}


def check_decoder(bundle: Bundle, session: ort.InferenceSession, prefix: Arrays) -> None:
    """Compare decoder.onnx and the prefix with the manifest; BundleError on the first difference."""
    manifest = bundle.manifest
    shape, cross = manifest.decoder, manifest.cross_attention
    if shape is None or cross is None or manifest.prompt is None:
        raise BundleError(f"the bundle {bundle.name} cannot describe cells; choose one with a decoder.")
    found = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    n_caches = sum(name.startswith("key.") for name in found)
    if n_caches != shape.n_layers or cross.n_layers != shape.n_layers - shape.n_lower:
        raise differs(bundle, f"{shape.n_layers} layers", f"{n_caches}")
    cache = [None, shape.n_kv_heads, None, shape.d_head]
    wanted: dict[str, Shape] = {
        "hidden": [None, None, shape.d_model],
        "logits": [None, None, shape.vocab_size],
        "attention": [None, cross.n_layers, cross.n_heads, None, None],
        **attended_shapes(cross),
        **{f"{part}.{i}": cache for i in range(shape.n_layers) for part in ("key", "value")},
    }
    for name, sizes in wanted.items():
        if not _agrees(found.get(name), sizes):
            raise differs(bundle, f"{name} {sizes}", f"{found.get(name)}")
    check_prompt(bundle, manifest, shape, prefix)


def check_text_decoder(bundle: Bundle, session: ort.InferenceSession) -> None:
    """Compare the decoder.onnx of a family without an encoder with the manifest; BundleError on a difference."""
    shape, style = bundle.manifest.decoder, bundle.manifest.style
    if shape is None or style is None:
        raise BundleError(f"the bundle {bundle.name} reads no sentences; choose one of the family c2s.")
    found = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    n_caches = sum(name.startswith("key.") for name in found)
    if n_caches != shape.n_layers or ("near" in found) != bool(style.window):
        raise differs(bundle, f"{shape.n_layers} layers and a window of {style.window}", f"{n_caches} layers")
    cache = [None, shape.n_kv_heads, None, shape.d_head]
    wanted: dict[str, Shape] = {
        "logits": [None, None, shape.vocab_size],
        "states": [None, None, shape.d_model],
        **{f"{part}.{i}": cache for i in range(shape.n_layers) for part in ("key", "value")},
    }
    for name, sizes in wanted.items():
        if not _agrees(found.get(name), sizes):
            raise differs(bundle, f"{name} {sizes}", f"{found.get(name)}")


def check_instruct(bundle: Bundle, name: str, session: ort.InferenceSession) -> None:
    """Compare a graph of a bundle that follows instructions with the manifest; BundleError on a difference."""
    found = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    for tensor, sizes in instruct_sizes(instruct_shapes(bundle))[name].items():
        if not _agrees(found.get(tensor), sizes):
            raise differs(bundle, f"{tensor} {sizes} of {name}", f"{found.get(tensor)}")


def instruct_sizes(shapes: InstructShapes) -> dict[str, dict[str, Shape]]:
    """Return the sizes of inputs and outputs by graph; None for those that vary."""
    t5, tower, profile = shapes.t5, shapes.tower, shapes.profile
    features, heads = [None, tower.n_queries, t5.d_model], [None, t5.n_heads, None, t5.d_head]
    parts = [f"{part}.{i}" for i in range(t5.n_layers) for part in ("key", "value")]
    crosses = {f"cross_{name}": heads for name in parts}
    found: dict[str, dict[str, Shape]] = {
        TOWER: {"features": features},
        ENCODER: {"features": features, "states": [None, None, t5.d_model]},
        CROSS: crosses,
        DECODER: {
            "logits": [None, None, t5.vocab_size],
            "states": [None, None, t5.d_model],
            **crosses,
            **dict.fromkeys(parts, heads),
        },
    }
    if profile is not None:
        wide = [None, profile.n_genes]
        found[PROFILE] = {"latent": [None, profile.n_latent], "rates": wide, "dropout": wide}
    return found


def check_encoder(bundle: Bundle, session: ort.InferenceSession) -> None:
    """Compare encoder.onnx with the manifest; BundleError when the memory has another width."""
    found = {value.name: value.shape for value in session.get_outputs()}
    width = bundle.manifest.encoder_shape.d_model
    if not _agrees(found.get("memory"), [None, None, width]) or not _agrees(found.get("cell"), [None, width]):
        raise differs(bundle, f"an encoder of width {width}", f"memory {found.get('memory')}")


def check_length(bundle: Bundle, max_new_tokens: int) -> None:
    """Raise BundleError when prompt and text do not fit the decoder's positions."""
    shape, prompt = bundle.manifest.decoder, bundle.manifest.prompt
    if shape and prompt and len(prompt.token_ids) + max_new_tokens > shape.max_positions:
        raise BundleError(
            f"the bundle {bundle.name} has {shape.max_positions} positions, too few for a prompt of "
            f"{len(prompt.token_ids)} and {max_new_tokens} new tokens; choose a smaller max_new_tokens."
        )


def check_prompt(bundle: Bundle, manifest: Manifest, shape: DecoderShape, prefix: Arrays) -> None:
    """Compare the prompt and what is known of it beforehand with the manifest; BundleError on the first difference."""
    ids = manifest.prompt.token_ids if manifest.prompt else ()
    if not ids or not all(0 <= token < shape.vocab_size for token in ids):
        raise differs(bundle, f"a prompt of tokens below {shape.vocab_size}", f"{list(ids[:5])}")
    known = len(ids) - 1
    wanted: dict[str, tuple[int, ...]] = {"hidden": (known, shape.d_model)}
    for i in range(shape.n_lower):
        wanted |= {f"{part}.{i}": (shape.n_kv_heads, known, shape.d_head) for part in ("key", "value")}
    for name, sizes in wanted.items():
        if name not in prefix or prefix[name].shape != sizes:
            raise differs(bundle, f"a prefix with {name} {sizes}", f"{prefix[name].shape if name in prefix else None}")


def _agrees(found: Shape | None, wanted: Shape) -> bool:
    if found is None or len(found) != len(wanted):
        return False
    return all(w is None or f == w for f, w in zip(found, wanted, strict=True))


def differs(bundle: Bundle, said: str, is_: str) -> BundleError:
    """Return the error for a manifest that says one thing where the files have another."""
    return BundleError(
        f"the manifest of {bundle.name} speaks of {said.replace('None', '*')} where its files have {is_}; "
        "copy the bundle again or export it anew."
    )
