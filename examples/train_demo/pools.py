"""The last lesson: to describe a pool of cells from the mean of their embeddings, a memory of one token.

The encoder stays as it is; the decoder goes on with single cells beside the pools, so that it forgets nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from binning import bin_rows
from cells import Cells, Rows
from course import LABELS, Course, gene_ids, with_cls
from network import DemoModel, Weights, Words, already_named, loss_parts
from torch import Tensor


@dataclass(frozen=True)
class PoolPlan:
    """How long, how fast, and how large the pools are."""

    epochs: int = 8
    rate: float = 4e-4
    share: float = 0.5  # of the loss
    smallest: int = 4
    largest: int = 40


@dataclass(frozen=True)
class PoolBatch:
    """One pool per cell type: memory [B, 1, m], prompt and text [B, P + T - 1], and what to predict [B, T]."""

    memory: Tensor
    tokens: Tensor
    target: Tensor
    wanted: Tensor
    attend: Tensor
    kind: Tensor


@torch.no_grad()
def embed(model: DemoModel, digits: np.ndarray) -> Tensor:
    """Return the cell embeddings [N, m], of length 1, without dropout."""
    was = model.training
    model.eval()
    parts = []
    for chunk in np.array_split(digits, max(1, len(digits) // 64)):
        ids = gene_ids(*chunk.shape)
        parts.append(model.encoder(ids, with_cls(chunk), torch.ones_like(ids, dtype=torch.bool))[1])
    model.train(was)
    return F.normalize(torch.cat(parts), dim=-1)


def draw_pools(course: Course, vectors: Tensor, plan: PoolPlan, rng: np.random.Generator) -> PoolBatch:
    """Draw a pool of every type from the training cells, and a text about its mean expression."""
    cells: Cells = course.cells
    chosen = [_members(np.flatnonzero(cells.labels == label), plan, rng) for label in LABELS]
    memory = F.normalize(torch.stack([vectors[torch.from_numpy(rows)].mean(0) for rows in chosen]), dim=-1)
    texts = []
    for label, rows in zip(LABELS, chosen, strict=True):
        states, counts = np.unique([course.states[i] for i in rows], return_counts=True)
        state = str(states[counts.argmax()])
        texts.append(course.writer.write(label, state, cells.expression[rows].mean(0), rng, course.plan.noise))
    tokens, lengths = course.encoder.batch(texts)
    first = len(course.encoder.prompt)
    target = tokens[:, first:]
    wanted = np.arange(target.shape[1])[None] < lengths[:, None] - first
    kind = np.where(wanted, course.encoder.label_of[target], -1)
    arrays = (tokens[:, :-1], target, wanted, course.encoder.gene_of[target], kind)
    return PoolBatch(memory[:, None], *(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))


def _members(rows: Rows, plan: PoolPlan, rng: np.random.Generator) -> Rows:
    count = min(len(rows), int(rng.integers(plan.smallest, plan.largest + 1)))
    return rng.choice(rows, count, replace=False)


def pool_loss(model: DemoModel, batch: PoolBatch, words: Words, weights: Weights) -> Tensor:
    """Return the loss of the texts about pools."""
    mask = torch.ones(batch.memory.shape[:2], dtype=torch.bool)
    logits, _ = model.decoder.forward_train(batch.tokens, batch.memory, mask)
    rows, places = batch.wanted.nonzero(as_tuple=True)
    logits, attend = logits[rows, places], batch.attend[rows, places]
    plain = F.cross_entropy(logits, batch.target[rows, places], label_smoothing=weights.smoothing, reduction="none")
    weight = torch.where(batch.kind[rows, places] >= 0, weights.type_token, 1.0)
    weight = torch.where(attend > 0, weights.gene_token, weight)
    said = already_named(batch.attend, len(words.genes))[rows, places][attend > 0]
    chance = logits[attend > 0].softmax(-1)[:, words.genes]
    again = -torch.log1p(-(chance * said).sum(-1).clamp(max=0.999)).mean()
    return (plain * weight).sum() / len(rows) + weights.repeats * again


def teach_pools(course: Course, model: DemoModel, weights: Weights, plan: PoolPlan) -> None:
    """Train the decoder of `model` (prepared for training) on pools and on single cells."""
    parameters = list(model.decoder.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=plan.rate, weight_decay=course.plan.decay)
    steps = plan.epochs * course.batches_per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, steps, pct_start=0.1)
    for epoch in range(plan.epochs):
        number = course.plan.epochs + epoch  # fresh draws
        rng = np.random.default_rng([course.plan.seed, number, 1])
        torch.manual_seed(course.plan.seed * 100_003 + number)
        model.train()
        vectors = embed(model, bin_rows(course.cells.thinned(rng, course.plan.thinning), rng))
        for batch in course.epoch(number):
            single = sum(loss_parts(model, batch, course.words, weights).values(), torch.zeros(()))
            pooled = pool_loss(model, draw_pools(course, vectors, plan, rng), course.words, weights)
            optimiser.zero_grad(set_to_none=True)
            ((1 - plan.share) * single + plan.share * pooled).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
        print(f"pools {epoch + 1} of {plan.epochs}: cells {single.item():.3f}, pools {pooled.item():.3f}", flush=True)
