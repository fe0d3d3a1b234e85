"""Whether the weights of a bundle have the sizes that its manifest says, before the library is told of them.

The library works by those sizes alone; where a weight is smaller it would read what is not there.
"""

from __future__ import annotations

from cellscribe.engine.backends.contract import check_prompt, differs
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, PREFIX
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape, EncoderShape


class _Weights:
    """Compares the weights of one ONNX file with what the manifest says."""

    def __init__(self, bundle: Bundle, graph: str) -> None:
        self._bundle, self._weights = bundle, onnx_weights(bundle.path(graph))

    def has(self, name: str) -> bool:
        """Whether there is a weight of that name, quantised or not."""
        return self._weights.get(name) is not None or self._weights.quantized(name) is not None

    def check(self, name: str, *shape: int) -> None:
        """Raise BundleError unless a weight has a shape; a quantised one is padded along its first axis."""
        quantized, wanted = self._weights.quantized(name), shape
        if quantized is None:
            found = self._weights[name].shape
        else:
            wanted, found = (shape[-1], -(-shape[0] // quantized.block)), quantized.scales.shape
        if found != wanted:
            raise differs(self._bundle, f"{name} {list(shape)}", f"{list(found)}")

    def check_embedding(self, name: str, rows: int, width: int) -> None:
        """Compare a table, which may be there again as the quantised weight [width, rows] of a product."""
        if self._weights.quantized(name) is not None:
            self.check(name, width, rows)
        found = self._weights[name].shape
        if found != (rows, width):
            raise differs(self._bundle, f"{name} {[rows, width]}", f"{list(found)}")

    def check_if_there(self, name: str, *shape: int) -> None:
        """Do the same where there is such a weight."""
        if self.has(name):
            self.check(name, *shape)

    def check_size(self, name: str, size: int) -> None:
        """Raise BundleError where there is such a weight and it has another number of elements."""
        found = self._weights.get(name)
        if found is not None and found.size != size:
            raise differs(self._bundle, f"{name} of {size} numbers", f"{found.size}")

    def check_rows(self, name: str, rows: int, width: int) -> None:
        """Raise BundleError unless a table has at least so many rows of a width."""
        found = self._weights[name].shape
        if len(found) != 2 or found[0] < rows or found[1] != width:
            raise differs(self._bundle, f"{name} {[rows, width]}", f"{list(found)}")


def check_encoder(bundle: Bundle) -> None:
    """Compare encoder.onnx with the manifest; BundleError on the first difference."""
    sizes, weights = bundle.manifest.encoder_shape, _Weights(bundle, ENCODER)
    d = sizes.d_model
    if sizes.n_heads < 1 or d % sizes.n_heads:
        raise differs(bundle, f"{sizes.n_heads} heads", f"an encoder of width {d}")
    _check_count(bundle, weights, "encoder.layers", "linear1.weight", sizes.n_layers)
    weights.check_rows("encoder.genes.embedding.weight", 1, d)
    _check_norm(weights, "encoder.genes.norm", d)
    if bundle.manifest.cell_input.value_style != "scaling":
        _check_norm(weights, "encoder.values.norm", d)
    if bundle.manifest.cell_input.value_style == "category":
        weights.check_rows("encoder.values.embedding.weight", 1, d)
    elif bundle.manifest.cell_input.value_style == "continuous":
        weights.check_size("encoder.values.linear1.weight", d)
        weights.check_size("encoder.values.linear1.bias", d)
        _check_linear(weights, "encoder.values.linear2", d, d)
    for i in range(sizes.n_layers):
        _check_encoder_layer(weights, f"encoder.layers.{i}", sizes)


def check_decoder(bundle: Bundle) -> None:
    """Compare decoder.onnx, cross.onnx and the prefix with the manifest; BundleError on the first difference."""
    manifest, weights = bundle.manifest, _Weights(bundle, DECODER)
    shape, cross = manifest.decoder, manifest.cross_attention
    assert shape is not None
    crossing = cross.n_layers if cross is not None else 0
    if not 0 <= shape.n_lower < shape.n_layers or crossing != (shape.n_layers - shape.n_lower if cross else 0):
        raise differs(bundle, f"{shape.n_layers} layers", f"{shape.n_lower} below {crossing} with cross-attention")
    if shape.n_kv_heads < 1 or shape.n_heads % shape.n_kv_heads or shape.d_head % 2:
        raise differs(bundle, f"{shape.n_heads} heads", f"{shape.n_kv_heads} of keys, each {shape.d_head} wide")
    _check_count(bundle, weights, "decoder.layers", "attention.q.weight", shape.n_layers)
    d = shape.d_model
    weights.check_embedding("decoder.embedding.weight", shape.vocab_size, d)
    weights.check_if_there("decoder.head.weight", d, shape.vocab_size)
    weights.check_if_there("decoder.norm.weight", d)
    for name in ("decoder.cos", "decoder.sin"):
        weights.check_rows(name, shape.max_positions, shape.d_head // 2)
    for i in range(shape.n_layers):
        _check_decoder_layer(weights, f"decoder.layers.{i}", shape)
    if manifest.prompt is not None:
        check_prompt(bundle, manifest, shape, bundle.tensors(PREFIX))
    if cross is not None:
        _check_crosses(bundle, weights, shape, cross)


def _check_encoder_layer(weights: _Weights, at: str, sizes: EncoderShape) -> None:
    d = sizes.d_model
    _check_linear(weights, f"{at}.qkv", d, 3 * d)
    _check_linear(weights, f"{at}.out", d, d)
    _check_linear(weights, f"{at}.linear1", d, sizes.d_ffn)
    _check_linear(weights, f"{at}.linear2", sizes.d_ffn, d)
    _check_norm(weights, f"{at}.norm1", d)
    _check_norm(weights, f"{at}.norm2", d)


def _check_decoder_layer(weights: _Weights, at: str, shape: DecoderShape) -> None:
    d, wide, narrow = shape.d_model, shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head
    for part, width in (("q", wide), ("k", narrow), ("v", narrow)):
        weights.check(f"{at}.attention.{part}.weight", d, width)
    weights.check(f"{at}.attention.out.weight", wide, d)
    weights.check(f"{at}.feed_forward.gate.weight", d, shape.d_ffn)
    weights.check(f"{at}.feed_forward.up.weight", d, shape.d_ffn)
    weights.check(f"{at}.feed_forward.down.weight", shape.d_ffn, d)
    weights.check_if_there(f"{at}.norm1.weight", d)
    weights.check_if_there(f"{at}.norm2.weight", d)


def _check_crosses(bundle: Bundle, weights: _Weights, shape: DecoderShape, cross: CrossShape) -> None:
    d, m, wide = shape.d_model, cross.d_memory, cross.n_heads * cross.d_head
    if m != bundle.manifest.encoder_shape.d_model:
        raise differs(bundle, f"a memory of width {m}", f"an encoder of width {bundle.manifest.encoder_shape.d_model}")
    if cross.n_kv_heads < 1 or cross.n_heads % cross.n_kv_heads:
        raise differs(bundle, f"{cross.n_heads} heads of cross-attention", f"{cross.n_kv_heads} of keys")
    narrow = cross.n_kv_heads * cross.d_head
    projections = None if cross.form == "latent" else _Weights(bundle, CROSS)
    for n in range(cross.n_layers):
        at, to = f"crosses.{n}", f"modules_to_trace.{n}"
        weights.check(f"{at}.cross.q.weight", d, wide)
        weights.check(f"{at}.cross.out.weight", wide, d)
        weights.check_size(f"{at}.cross.q.bias", wide)
        weights.check_size(f"{at}.cross.out.bias", d)
        weights.check_if_there(f"{at}.cross.norm.weight", d)
        if projections is None:
            weights.check(f"{at}.key", cross.n_kv_heads, cross.d_head, m)
            weights.check(f"{at}.value", cross.n_kv_heads, m, cross.d_head)
            weights.check_size(f"{at}.shift", narrow)
            continue
        for part in "kv":
            projections.check(f"{to}.{part}.weight", m, narrow)
            projections.check_size(f"{to}.{part}.bias", narrow)
        for part in ("weight", "bias"):
            projections.check_size(f"{to}.memory_norm.{part}", m)


def _check_linear(weights: _Weights, name: str, k: int, n: int) -> None:
    weights.check(f"{name}.weight", k, n)
    weights.check(f"{name}.bias", n)


def _check_norm(weights: _Weights, name: str, width: int) -> None:
    weights.check(f"{name}.weight", width)
    weights.check(f"{name}.bias", width)


def _check_count(bundle: Bundle, weights: _Weights, at: str, part: str, count: int) -> None:
    """Raise BundleError unless there are layers 0 to `count` - 1 and no more."""
    if count < 1 or not weights.has(f"{at}.{count - 1}.{part}") or weights.has(f"{at}.{count}.{part}"):
        raise differs(bundle, f"{count} layers ({at})", "another number of them")
