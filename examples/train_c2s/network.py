"""The model: a GPT-2 whose tokens of genes start from the training cells, and its loss."""

from __future__ import annotations

import torch
from lessons import Batch, Lessons, Plan
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel
from words import END_ID


def make_model(lessons: Lessons) -> GPT2LMHeadModel:
    """Build and initialise the model; the same for the same lessons."""
    plan = lessons.plan
    config = GPT2Config(
        vocab_size=len(lessons.is_gene), n_positions=plan.context, n_embd=plan.d_model, n_layer=plan.layers,
        n_head=plan.heads, resid_pdrop=plan.dropout, embd_pdrop=plan.dropout, attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
        bos_token_id=END_ID, eos_token_id=END_ID, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        model = GPT2LMHeadModel(config)
        loadings = torch.from_numpy(lessons.loadings)
        bridge = torch.randn(loadings.shape[1], plan.d_model) * loadings.shape[1] ** -0.5
    with torch.no_grad():
        model.transformer.wte.weight[lessons.is_gene] += 0.03 * (loadings @ bridge)[lessons.is_gene]
    return model


def loss_parts(model: GPT2LMHeadModel, batch: Batch, is_gene: Tensor, plan: Plan) -> dict[str, Tensor]:
    """Return the parts of the loss, weighted."""
    states = model.transformer(batch.tokens[:, :-1]).last_hidden_state  # [B, T - 1, d]
    rows, places = batch.weight.nonzero(as_tuple=True)
    chances = (states[rows, places] @ model.transformer.wte.weight.t()).log_softmax(-1)  # [n, V]
    target = batch.tokens[rows, places + 1]
    plain = -chances.gather(1, target[:, None]).squeeze(1) * batch.weight[rows, places]
    genes = is_gene[target]
    seen = batch.tokens[rows[genes]]  # [g, T]
    is_said = is_gene[seen] & (torch.arange(seen.shape[1]) <= places[genes, None])
    again = (chances[genes].gather(1, seen).exp() * is_said).sum(-1)
    return {
        "types": plain[~genes].sum() / len(batch.tokens),
        "genes": plain[genes].sum() / len(batch.tokens),
        "repeats": plan.repeats * -torch.log1p(-again.clamp(max=0.999)).mean(),
    }
