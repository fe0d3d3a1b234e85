"""What training draws from the training cells: soft labels, texts, tokens and batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from baseline import linear_model
from binning import bin_rows
from cells import Cells, Floats, Rows, choose_genes, folds
from network import Batch, DemoModel, Sizes, Weights, Words, initialise
from sklearn.model_selection import cross_val_predict
from texts import STATES, TYPES, Writer, programme_genes
from tokens import UNKNOWN, Encoder, train_tokenizer
from torch import Tensor

LABELS = list(TYPES)
TEACHER_C = 0.03


@dataclass(frozen=True)
class Plan:
    """One training run."""

    genes: int = 256
    words: int = 1600
    epochs: int = 80
    batch: int = 16
    rate: float = 1.5e-3
    decay: float = 0.1
    ema: float = 0.998
    thinning: float = 0.5  # the least share of counts kept
    noise: float = 0.05  # of gene choice
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
        soft = soft_labels(cells, plan.teacher)
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
            model = DemoModel(sizes, len(self.cells.genes) + 3, words, len(LABELS), len(STATES), weights.dropout)
        initialise(model, self.cells, self.encoder.gene_of, self.plan.seed)
        return model

    @property
    def words(self) -> Words:
        """The tokens that name types and genes; a gene that no text names has the unknown token."""
        genes = np.zeros(len(self.cells.genes) + 1, np.int64)
        genes[self.encoder.gene_of] = np.arange(len(self.encoder.gene_of))
        genes[0] = UNKNOWN
        types = [int(np.flatnonzero(self.encoder.label_of == i)[0]) for i in range(len(LABELS))]
        return Words(torch.tensor(types), torch.from_numpy(genes))

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return -(-len(self.cells) // self.plan.batch)

    def epoch(self, number: int) -> list[Batch]:
        """Draw an epoch: thinned cells, fresh digits, fresh texts; a pure function of seed and number."""
        rng = np.random.default_rng([self.plan.seed, number])
        expression = self.cells.thinned(rng, self.plan.thinning)
        digits = bin_rows(expression, rng)
        order = rng.permutation(len(self.cells))
        return [self._batch(rows, expression, digits, rng) for rows in np.array_split(order, self.batches_per_epoch)]

    def _batch(self, rows: Rows, expression: Floats, digits: Floats, rng: np.random.Generator) -> Batch:
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
            torch.tensor([list(STATES).index(self.states[i]) for i in rows]),
            as_tensor(salience).float(),
        )

    def _salience(self, values: Floats) -> Floats:
        """How telling each memory token is for each type, [S, types]."""
        score = np.stack([self.writer.telling_genes(label, values) for label in LABELS], 1)
        return np.concatenate([np.zeros((1, len(LABELS)), np.float32), np.sqrt(score)])


def soft_labels(cells: Cells, teacher: float) -> npt.NDArray[np.float64]:
    """Mix the labels with what a linear model that did not see the cell thinks of it, [N, types]."""
    guess = cross_val_predict(
        linear_model(TEACHER_C), cells.expression, cells.labels, cv=list(folds(cells)), method="predict_proba"
    )
    truth = np.array(LABELS)[None] == cells.labels[:, None]
    columns = np.argsort(np.argsort(LABELS))  # the linear model sorts its labels
    mixed: npt.NDArray[np.float64] = (1 - teacher) * truth + teacher * guess[:, columns]
    return mixed


def gene_ids(batch: int, genes: int) -> Tensor:
    """Return the token ids [B, S]: `<cls>` is 0, genes follow in vocabulary order."""
    return torch.arange(genes + 1).expand(batch, -1)


def with_cls(digits: np.ndarray) -> Tensor:
    """Put the `<cls>` value 0 before the digits."""
    return torch.nn.functional.pad(torch.from_numpy(digits).float(), (1, 0))
