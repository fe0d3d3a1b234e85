"""What TensorRT wants of a decoder without an encoder: its sizes by name, and attention that it can compute."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cellscribe.engine.backends.tensorrt.plan import Recipe, text_capacity
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.bundle.shapes import DecoderShape
from cellscribe.engine.errors import PlanError, UsageError

PRECISIONS = ("fp16", "fp32")
_PROMPT_TOKENS = 1024  # of a prompt, unless more are asked for: the sentence of 200 genes in GPT-2's tokens, and a task
_AXES = {"tokens": ("batch", "tokens"), "mask": ("batch", "tokens", "capacity"), "chosen": ("batch", "outputs")}
_HIDDEN = -1e30  # the score of what a token does not see


def check_text_options(bundle: Bundle, genes: int | None, prompt_tokens: int | None, precision: str) -> None:
    """Raise UsageError for an option of the other kind of bundle."""
    if precision not in PRECISIONS:
        raise UsageError(f"--precision is {precision!r}; choose {' or '.join(PRECISIONS)}.")
    if bundle.manifest.style is None:
        for option, is_given in (("--prompt-tokens", prompt_tokens is not None), ("--precision", precision != "fp16")):
            if is_given:
                raise UsageError(f"{option} is for bundles that read cells as sentences; leave it out.")
    elif genes is not None:
        raise UsageError(f"--genes is for bundles with an encoder, and {bundle.name} has none; give --prompt-tokens.")


def text_recipe(
    bundle: Bundle, recipe: Recipe, max_new_tokens: int, prompt_tokens: int | None, precision: str
) -> Recipe:
    """Return the recipe for a bundle that reads cells as sentences.

    Raises
    ------
    UsageError
        When prompt and text do not fit the decoder's positions.
    PlanError
        When the bundle is in another precision.
    """
    shape = bundle.manifest.decoder
    assert shape is not None
    most = shape.max_positions - max_new_tokens
    longest = min(_PROMPT_TOKENS, most) if prompt_tokens is None else prompt_tokens
    if not 1 <= longest <= most:
        raise UsageError(
            f"the bundle {bundle.name} has {shape.max_positions} positions, too few for a prompt of {max(longest, 1)} "
            f"and {max_new_tokens} new tokens; choose fewer."
        )
    if precision == "fp32" != bundle.manifest.precision:
        raise PlanError(
            f"the bundle {bundle.name} is {bundle.manifest.precision}; fp32 plans are built from fp32 ones."
        )
    return replace(
        recipe,
        precision=precision,
        prompt_batch=1,
        encode_batch=0,
        prompt_len=longest,
        max_new_tokens=max_new_tokens,
        capacity=text_capacity(longest, max_new_tokens),
        genes=0,
        outputs=(),
        plugins=(),
    )


def name_axes(model: ModelProto) -> None:
    """Give varying sizes the names that profiles know; the tracer numbers them where no layer has a window."""
    graph = model.graph
    names = {
        dim.dim_param: name
        for value in graph.input
        for dim, name in zip(value.type.tensor_type.shape.dim, _AXES.get(value.name, ()), strict=False)
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, dim.dim_param)


def open_attention(model: ModelProto, shape: DecoderShape, capacity: int) -> None:
    """Write attention as single operators where TensorRT has no kernel for it: with capped scores, and in float32.

    Its inputs are q [B, H, T, D], k and v [B, K, C, D] and the mask bool [B, 1, T, C].
    """
    kind = next(value for value in model.graph.input if value.name == "key.0").type.tensor_type.elem_type
    written: list[NodeProto] = []
    for node in model.graph.node:
        found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "Attention" and (kind == TensorProto.FLOAT or found.get("softcap")):
            nodes, constants = _opened(node, found["scale"], found.get("softcap", 0.0), shape, capacity, kind)
            model.graph.initializer.extend(constants)
            written += nodes
        else:
            written.append(node)
    del model.graph.node[:]
    model.graph.node.extend(written)


def _opened(
    node: NodeProto, scale: float, cap: float, shape: DecoderShape, capacity: int, kind: int
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes in place of one attention, and their constants; softmax and what is before it are in float32.

    Heads that share keys lie after each other, so that one product [G·T, D] x [D, C] serves them.
    """
    at, (q, k, v, mask) = f"{node.output[0]}.open", node.input[:4]
    wide, narrow, width = shape.n_heads, shape.n_kv_heads, shape.d_head
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []

    def constant(name: str, value: object, dtype: type) -> str:
        constants.append(numpy_helper.from_array(np.array(value, dtype), f"{at}.{name}"))
        return constants[-1].name

    def add(operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"{at}.{name}"], f"{at}.{name}", **attributes))
        return nodes[-1].output[0]

    def shaped(source: str, name: str, *sizes: int) -> str:
        return add("Reshape", [source, constant(f"{name}.shape", sizes, np.int64)], name)

    turned = add("Transpose", [k], "turned", perm=[0, 1, 3, 2])
    scores = add("MatMul", [shaped(q, "grouped", 0, narrow, -1, width), turned], "product")
    scores = add("Cast", [scores], "wide", to=TensorProto.FLOAT) if kind != TensorProto.FLOAT else scores
    scores = add("Mul", [scores, constant("factor", scale / (cap or 1.0), np.float32)], "scaled")
    if cap:
        scores = add("Mul", [add("Tanh", [scores], "squashed"), constant("cap", cap, np.float32)], "capped")
    scores = shaped(scores, "apart", 0, narrow, wide // narrow, -1, capacity)
    seen = add("Unsqueeze", [mask, constant("axis", [2], np.int64)], "seen")
    scores = add("Where", [seen, scores, constant("hidden", _HIDDEN, np.float32)], "masked")
    weights = add("Softmax", [scores], "weights", axis=-1)
    weights = add("Cast", [weights], "narrow", to=kind) if kind != TensorProto.FLOAT else weights
    mixed = add("MatMul", [shaped(weights, "together", 0, narrow, -1, capacity), v], "mixed")
    shaped(mixed, "heads", 0, wide, -1, width)
    nodes[-1].output[0] = node.output[0]
    return nodes, constants
