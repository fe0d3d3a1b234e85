"""What does transformers' generate need? The same Llama weights, without cross-attention: less work than ours.

Eager with a growing cache, and with a static cache and torch.compile as transformers does it.
"""

from __future__ import annotations

from typing import Any

from gpu.context import Context
from gpu.results import Row, rounded

_NAMES = {
    "norm1.weight": "input_layernorm.weight", "norm2.weight": "post_attention_layernorm.weight",
    "attention.q.weight": "self_attn.q_proj.weight", "attention.k.weight": "self_attn.k_proj.weight",
    "attention.v.weight": "self_attn.v_proj.weight", "attention.out.weight": "self_attn.o_proj.weight",
    "feed_forward.gate.weight": "mlp.gate_proj.weight", "feed_forward.up.weight": "mlp.up_proj.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}  # fmt: skip


def run(context: Context) -> None:
    """Eager generate."""
    _measure(context, "transformers", None, context.sizes.llama_slots)


def run_static(context: Context) -> None:
    """A static cache and torch.compile: compiling takes longer than all else, so one number of slots."""
    _measure(context, "transformers-static", "static", context.sizes.llama_slots[:1])


def _measure(context: Context, name: str, cache: str | None, slots_of: tuple[int, ...]) -> None:
    import transformers

    section = context.section(name)
    how = "generate, eager" if cache is None else "generate, static cache, torch.compile"
    section.fact(
        what=f"transformers {transformers.__version__} {how}, fp16, the decoder's weights without cross-attention "
        "and without an encoder: less work than ours"
    )
    model = llama(context)
    section.fact(check=checked(context, model))
    for slots in slots_of:
        section.row(**timed(context, model, slots, cache))
    section.save("ok")


def llama(context: Context) -> Any:
    """Return transformers' Llama with the weights of our decoder in fp16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch, ours = context.torch, context.half_decoder
    c = ours.config
    config = LlamaConfig(
        vocab_size=c.vocab_size, hidden_size=c.d_model, intermediate_size=c.d_ffn, num_hidden_layers=c.n_layers,
        num_attention_heads=c.n_heads, num_key_value_heads=c.n_kv_heads, rms_norm_eps=c.rms_norm_eps,
        rope_theta=c.rope_theta, max_position_embeddings=c.max_positions, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    with torch.device("meta"):
        made = LlamaForCausalLM(config).half()
    made.to_empty(device=context.device)
    made.load_state_dict(_weights(ours), strict=True)
    made.model.rotary_emb = type(made.model.rotary_emb)(config=config).to(context.device)
    return made.eval()


def checked(context: Context, model: Any) -> Row:
    """Compare the prompt's logits with those of our module without cross-attention, in fp16."""
    from cellscribe.export.models.lingocell import LingoDecoder

    torch, ours = context.torch, context.half_decoder
    with torch.device("meta"):
        plain = LingoDecoder(ours.config, None)
    state = {name: one for name, one in ours.state_dict().items() if ".cross." not in name}
    plain.load_state_dict(state, assign=True)
    plain.restore_tables()
    prompt = torch.tensor([context.parts.prompt_ids], device=context.device)
    with torch.inference_mode():
        wanted = plain.to(context.device).forward_train(prompt, None, None)[0]
        found = model(prompt).logits.float()
    error = float((wanted - found).abs().max())
    if error > 0.5:
        raise RuntimeError(f"its logits differ by {error:.2g}: not the same weights")
    equal = (wanted.argmax(-1) == found.argmax(-1)).float().mean()
    return {"logits_max_error": rounded(error), "equal_tokens": rounded(float(equal))}


def timed(context: Context, model: Any, slots: int, cache: str | None) -> Row:
    """Time `generate` for as many prompts as slots."""
    torch, tokens = context.torch, context.sizes.tokens
    prompt = torch.tensor(context.parts.prompt_ids, device=context.device).expand(slots, -1)
    options: dict[str, Any] = {} if cache is None else {"cache_implementation": cache}

    def generate() -> Any:
        return model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=tokens,
            min_new_tokens=tokens, **options,
        )  # fmt: skip

    first = context.clock.wall(generate)
    again = min(context.clock.wall(generate) for _ in range(2))
    return {
        "slots": slots,
        "tokens": tokens,
        "ms_per_cell": rounded(1e3 * again / slots),
        "step_ms": rounded(1e3 * again / tokens),
        "tokens_per_s": rounded(slots * tokens / again),
        "first_s": rounded(first),
    }


def _weights(ours: Any) -> dict[str, Any]:
    """Return our decoder's weights under transformers' names; Dense keeps them the other way round."""
    found = {"model.embed_tokens.weight": ours.embedding.weight, "model.norm.weight": ours.norm.weight}
    found["lm_head.weight"] = (ours.embedding.weight if ours.head is None else ours.head.weight.t()).contiguous()
    for i, layer in enumerate(ours.blocks):
        for name, theirs in _NAMES.items():
            weight = layer.get_parameter(name)
            found[f"model.layers.{i}.{theirs}"] = weight.t().contiguous() if weight.ndim == 2 else weight
    return found
