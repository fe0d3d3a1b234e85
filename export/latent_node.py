"""The ONNX node of latent cross-attention, and its function body of standard operators.

B slots, R rows of queries (head-major: row = head * T + token), m width of the memory, S genes, H heads, K kept tokens.

    query [B, R, m], memory [B, S, m], mask int32 [B, S], kept int64 [B, K]
    -> mixed [B, R, m], mass float32 [B, K, S], weights float32 [B, H, K, S]

Of ``kept`` only the second size is read: for how many of the last tokens the mass (the mean over heads of the softmax
weights) and the weights are wanted. The mask is int32, not bool, because TensorRT's plugins take no bool tensors.
"""

from __future__ import annotations

from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

DOMAIN, OPERATOR, DOMAIN_VERSION = "cellscribe", "LatentCrossAttention", 1
PLUGIN_VERSION = "1"
OUTPUTS = ("mixed", "mass", "weights")
WIDTHS, MAX_HEADS = (64, 128, 256, 512), 64  # that the kernel is built for
_MASKED = -1e30
_LAST = 2**63 - 1


def latent_node(inputs: list[str], outputs: list[str], heads: int, name: str) -> NodeProto:
    """Return one node; a third output asks for the weights.

    TensorRT's parser prefers a function body to a plugin unless the node names a ``plugin_namespace``.
    """
    return helper.make_node(
        OPERATOR,
        inputs,
        outputs,
        name=name,
        domain=DOMAIN,
        num_heads=heads,
        with_weights=int(len(outputs) > 2),
        plugin_version=PLUGIN_VERSION,
        plugin_namespace=DOMAIN,
    )


def latent_function(kind: int, opset: int, *, with_weights: bool) -> FunctionProto:
    """Return the function that the nodes of a model stand for, over a memory of this element type.

    It gives the weights only where the nodes do: ONNX Runtime asks a node for every output of its function, and
    TensorRT a plugin for every output of its node. Its names carry a prefix: TensorRT's parser takes a tensor of the
    graph for an input of the function where the two have one name.
    """
    own = "latent_cross."
    nodes = [
        *_constants(own),
        *_scores(own, kind),
        helper.make_node("Softmax", [own + "biased"], [own + "softmax"], axis=-1),
        _cast(own + "softmax", own + "probabilities", kind, TensorProto.FLOAT),
        helper.make_node("MatMul", [own + "probabilities", own + "memory"], [own + "mixed"]),
        *_kept_weights(own),
        helper.make_node("ReduceMean", [own + "weights", own + "one"], [own + "mass"], keepdims=0),
    ]
    return helper.make_function(
        DOMAIN,
        OPERATOR,
        [own + name for name in ("query", "memory", "mask", "kept")],
        [own + name for name in OUTPUTS[: 3 if with_weights else 2]],
        nodes,
        [helper.make_opsetid("", opset)],
        ["num_heads", "with_weights", "plugin_version", "plugin_namespace"],
    )


def _constants(own: str) -> list[NodeProto]:
    integers = {"zero": 0, "one": 1, "two": 2, "rest": -1, "last": _LAST}
    made = [helper.make_node("Constant", [], [own + name], value_ints=[value]) for name, value in integers.items()]
    made += [
        helper.make_node("Constant", [], [own + name], value_float=value)
        for name, value in (("seen", 0.0), ("masked", _MASKED))
    ]
    heads = helper.make_node("Constant", [], [own + "heads"])
    heads.attribute.add(name="value_int", ref_attr_name="num_heads", type=AttributeProto.INT)
    return [*made, heads]


def _scores(own: str, kind: int) -> list[NodeProto]:
    """Scores [B, R, S] in float32, and a bias that leaves masked genes no weight."""
    return [
        helper.make_node("Transpose", [own + "memory"], [own + "transposed"], perm=[0, 2, 1]),
        helper.make_node("MatMul", [own + "query", own + "transposed"], [own + "product"]),
        _cast(own + "product", own + "scores", TensorProto.FLOAT, kind),
        helper.make_node("Cast", [own + "mask"], [own + "flags"], to=TensorProto.BOOL),
        helper.make_node("Where", [own + "flags", own + "seen", own + "masked"], [own + "flat_bias"]),
        helper.make_node("Unsqueeze", [own + "flat_bias", own + "one"], [own + "bias"]),
        helper.make_node("Add", [own + "scores", own + "bias"], [own + "biased"]),
    ]


def _cast(source: str, target: str, to: int, kind: int) -> NodeProto:
    if to == kind:
        return helper.make_node("Identity", [source], [target])
    return helper.make_node("Cast", [source], [target], to=to)


def _kept_weights(own: str) -> list[NodeProto]:
    """Weights [B, R, S] -> those of the last tokens, [B, H, K, S]."""
    return [
        helper.make_node("Reshape", [own + "heads", own + "one"], [own + "heads_axis"]),
        helper.make_node("Shape", [own + "memory"], [own + "genes"], start=1, end=2),
        helper.make_node(
            "Concat",
            [own + "zero", own + "heads_axis", own + "rest", own + "genes"],
            [own + "by_head_shape"],
            axis=0,
        ),
        helper.make_node("Reshape", [own + "softmax", own + "by_head_shape"], [own + "by_head"]),
        helper.make_node("Shape", [own + "by_head"], [own + "tokens"], start=2, end=3),
        helper.make_node("Shape", [own + "kept"], [own + "kept_tokens"], start=1, end=2),
        helper.make_node("Sub", [own + "tokens", own + "kept_tokens"], [own + "first"]),
        helper.make_node("Slice", [own + "by_head", own + "first", own + "last", own + "two"], [own + "weights"]),
    ]
