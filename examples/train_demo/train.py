"""Train the demonstration model: ``python examples/train_demo/train.py --out out/demo_checkpoint``."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from binning import bin_rows
from cells import Cells, choose_genes, folds
from network import Batch, DemoModel, Sizes, Weights, initialise, loss_parts
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from texts import TYPES, Writer, named_genes, named_type, programme_genes
from tokens import END, Encoder, train_tokenizer
from torch import Tensor

LABELS = list(TYPES)


@dataclass(frozen=True)
class Plan:
    """One training run."""

    genes: int = 256
    words: int = 1600
    epochs: int = 80
    batch: int = 32
    rate: float = 2e-3
    decay: float = 0.1
    ema: float = 0.998
    thinning: float = 0.5  # the least share of counts kept
    noise: float = 0.1  # of gene choice
    teacher: float = 0.4  # share of the soft type target that comes from the out-of-fold linear model
    seed: int = 0


@dataclass
class Course:
    """Everything drawn from the training cells."""

    cells: Cells
    writer: Writer
    encoder: Encoder
    states: list[str]
    soft: Tensor  # [N, types]
    plan: Plan

    @classmethod
    def of(cls, cells: Cells, plan: Plan) -> Course:
        """Choose genes, fit the writer and the tokenizer, and soften the labels; sees nothing but `cells`."""
        model = LogisticRegression(C=0.03, max_iter=500)
        guess = cross_val_predict(model, cells.expression, cells.labels, cv=list(folds(cells)), method="predict_proba")
        truth = np.array(LABELS)[None] == cells.labels[:, None]
        order = np.argsort(np.argsort(LABELS))
        soft = (1 - plan.teacher) * truth + plan.teacher * guess[:, order]
        cells = cells.keep_genes(choose_genes(cells, plan.genes, programme_genes()))
        writer = Writer.fit(cells)
        states = writer.states(cells)
        rng = np.random.default_rng(plan.seed)
        texts = [
            writer.write(label, state, x, rng)
            for _ in range(8)
            for label, state, x in zip(cells.labels, states, cells.expression, strict=True)
        ]
        nameable = [g for g, yes in zip(cells.genes, writer.nameable, strict=True) if yes]
        tokenizer = train_tokenizer(texts, nameable, plan.words)
        encoder = Encoder.of(tokenizer, cells.genes, writer.nameable, list(TYPES.values()))
        return cls(cells, writer, encoder, states, torch.from_numpy(soft).float(), plan)

    def model(self, sizes: Sizes, weights: Weights) -> DemoModel:
        """Build and initialise the model for these cells."""
        with torch.random.fork_rng():
            torch.manual_seed(self.plan.seed)
            words = self.encoder.tokenizer.get_vocab_size()
            model = DemoModel(sizes, len(self.cells.genes) + 3, words, len(LABELS), weights.dropout)
        initialise(model, self.cells, self.encoder.gene_of, self.plan.seed)
        return model

    def epoch(self, number: int) -> list[Batch]:
        """Draw an epoch: thinned cells, fresh digits, fresh texts; a pure function of seed and number."""
        rng = np.random.default_rng([self.plan.seed, number])
        expression = self.cells.thinned(rng, self.plan.thinning)
        digits = bin_rows(expression, rng)
        order = rng.permutation(len(self.cells))
        return [
            self._batch(rows, expression, digits, rng)
            for rows in np.array_split(order, -(-len(order) // self.plan.batch))
        ]

    def _batch(self, rows: np.ndarray, expression: np.ndarray, digits: np.ndarray, rng: np.random.Generator) -> Batch:
        labels = self.cells.labels[rows]
        texts = [
            self.writer.write(label, self.states[i], expression[i], rng, self.plan.noise)
            for i, label in zip(rows, labels, strict=True)
        ]
        tokens, lengths = self.encoder.batch(texts)
        first = len(self.encoder.prompt)
        nxt = tokens[:, first:]
        wanted = np.arange(nxt.shape[1])[None] < lengths[:, None] - first
        salience = np.stack([self._salience(expression[i]) for i in rows])
        as_tensor = torch.from_numpy
        return Batch(
            gene_ids(len(rows), len(self.cells.genes)),
            with_cls(digits[rows]),
            as_tensor(tokens[:, :-1]),
            as_tensor(nxt),
            as_tensor(wanted),
            as_tensor(self.encoder.gene_of[nxt]),
            as_tensor(np.where(wanted, self.encoder.label_of[nxt], -1)),
            self.soft[rows],
            as_tensor(salience).float(),
            torch.tensor([int(np.flatnonzero(self.encoder.label_of == i)[0]) for i in range(len(LABELS))]),
        )

    def _salience(self, values: np.ndarray) -> np.ndarray:
        """How telling each memory token is for each type, [S, types]."""
        score = np.stack([self.writer.telling_genes(label, values) for label in LABELS], 1)
        return np.concatenate([np.zeros((1, len(LABELS))), np.sqrt(score)])


def gene_ids(batch: int, genes: int) -> Tensor:
    """Return the token ids [B, S]: `<cls>` is 0, genes follow in vocabulary order."""
    return torch.arange(genes + 1).expand(batch, -1)


def with_cls(digits: np.ndarray) -> Tensor:
    """Put the `<cls>` value 0 before the digits."""
    return torch.nn.functional.pad(torch.from_numpy(digits).float(), (1, 0))


@torch.no_grad()
def generate(model: DemoModel, encoder: Encoder, digits: np.ndarray, limit: int = 64) -> tuple[list[str], np.ndarray]:
    """Write greedily about cells; return texts and each gene's attention summed over the tokens [N, G]."""
    model.eval()
    values = with_cls(digits)
    ids = gene_ids(*digits.shape)
    mask = torch.ones_like(ids, dtype=torch.bool)
    memory, _ = model.encoder(ids, values, mask)
    tokens = torch.from_numpy(encoder.prompt).expand(len(ids), -1)
    done = torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(limit):
        nxt = model.decoder.forward_train(tokens, memory, mask)[0][:, -1].argmax(-1)
        nxt = torch.where(done, END, nxt)
        tokens, done = torch.cat([tokens, nxt[:, None]], 1), done | (nxt == END)
        if done.all():
            break
    attention = model.decoder.forward_train(tokens[:, :-1], memory, mask, return_attention=True)[1].mean((1, 2))
    first = len(encoder.prompt)
    made = (tokens[:, first:] != END).float()  # [B, T]
    mass = (attention[:, first - 1 :] * made[..., None]).sum(1)[:, 1:]
    texts = [encoder.tokenizer.decode(row[first:].tolist()).strip() for row in tokens]
    return texts, mass.numpy()


def score(course: Course, model: DemoModel, cells: Cells, seed: int = 12345) -> tuple[dict[str, float], list[str]]:
    """Judge greedy texts about cells that were not trained on."""
    cells = cells.keep_genes(course.cells.genes)
    texts, mass = generate(model, course.encoder, bin_rows(cells.expression, np.random.default_rng(seed)))
    right = np.mean([named_type(t) == label for t, label in zip(texts, cells.labels, strict=True)])
    ids = gene_ids(len(cells), len(cells.genes))
    dig = bin_rows(cells.expression, np.random.default_rng(seed))
    with torch.no_grad():
        head = model.type_head(model.encoder(ids, with_cls(dig), torch.ones_like(ids, dtype=torch.bool))[1]).argmax(1)
    named = [named_genes(t, cells.genes) for t in texts]
    top = [{cells.genes[g] for g in np.argsort(-row)[:10]} for row in mass]
    expressed = [cells.expression[i, cells.genes.index(g)] > 0 for i, row in enumerate(named) for g in row]
    from texts import named_state
    states = course.writer.states(cells)
    return {
        "type": float(right),
        "head": float(np.mean(np.array(LABELS)[head.numpy()] == cells.labels)),
        "named3": float(np.mean([len(set(n) & t) >= 3 for n, t in zip(named, top, strict=True)])),
        "expressed": float(np.mean(expressed)),
        "genes": float(np.mean([len(set(n)) for n in named])),
        "repeat": float(np.mean([len(set(n)) < len(n) for n in named])),
        "state": float(np.mean([named_state(t) == s for t, s in zip(texts, states, strict=True)])),
    }, texts


def train(course: Course, sizes: Sizes, weights: Weights, watch: Cells | None, every: int = 20) -> DemoModel:
    plan = course.plan
    model = course.model(sizes, weights)
    model.prepare(len(course.encoder.prompt))
    average = course.model(sizes, weights)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": plan.decay}, {"params": rest, "weight_decay": 0.0}], lr=plan.rate, betas=(0.9, 0.98)
    )
    steps = plan.epochs * len(course.epoch(0))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, steps, pct_start=0.1)
    started, step = time.time(), 0
    for epoch in range(plan.epochs):
        torch.manual_seed(plan.seed * 100_003 + epoch)
        model.train()
        total: Counter[str] = Counter()
        batches = course.epoch(epoch)
        for batch in batches:
            parts = loss_parts(model, batch, weights)
            loss = sum(parts.values())
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            keep = min(plan.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for a, p in zip(average.parameters(), model.parameters(), strict=True):
                    a.lerp_(p, 1 - keep)
            total.update({k: float(v) / len(batches) for k, v in parts.items()})
        line = " ".join(f"{k} {v:.3f}" for k, v in total.items())
        if epoch % 5 == 4:
            print(f"{epoch + 1} {time.time() - started:.0f}s {line}", flush=True)
        if watch is not None and (epoch + 1) % every == 0:
            print("   ", {k: round(v, 3) for k, v in score(course, average, watch)[0].items()}, flush=True)
    return average
