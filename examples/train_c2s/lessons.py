"""What an epoch teaches: fresh sentences of all training cells, and prompts with answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from baselines import certain, out_of_fold
from scipy import sparse
from sets import CellSet, part_of
from tokenizers import Tokenizer
from torch import Tensor
from words import END_ID, TASKS, frequent_genes, gene_ids, make_tokenizer

from cellscribe.engine.keyed import cell_keys, draws, stream_keys, uniforms
from cellscribe.engine.sentences.ranked import rank_genes, to_sentences
from cellscribe.engine.sentences.templates import Template, fill, packaged_templates
from cellscribe.engine.sentences.transform import TIES

Floats = npt.NDArray[np.float32]
KIND, LENGTH, JUDGED, LABEL, ORDER, DEPTH = range(31, 37)  # streams of the draws
SOFTENED = frozenset({"pbmc68k_reduced"})  # the one set whose labels a linear model doubts
ONLY_ANNOTATED = frozenset({"zheng68k"})  # its sentences are of other genes than those of the same types in the 700


@dataclass(frozen=True)
class Plan:
    """One training run.

    Parameters
    ----------
    num_genes, fewest_genes
        Genes of a sentence; half of the sentences have fewer, down to `fewest_genes`.
    least_cells
        Training cells that a gene must be high in to be a token of its own.
    shares
        Of cell type prediction and of conditional generation; the rest is generation without a type.
    thinning
        Least share of a cell's counts that an epoch keeps.
    teacher
        Share of labels of the softened sets that are drawn from a linear model that did not see the cell.
    label, sentence, repeats
        Weights of the loss of a cell type, of the genes in the prompt that asks for it, and of naming a gene again;
        that of a written cell is 1.
    judged
        Share of the genes whose prediction is judged, drawn anew in every epoch; a part costs less and says nearly as
        much.
    """

    num_genes: int = 100
    fewest_genes: int = 50
    least_cells: int = 3
    d_model: int = 64
    layers: int = 2
    heads: int = 4
    context: int = 512
    dropout: float = 0.1
    epochs: int = 32
    batch: int = 16
    rate: float = 3e-3
    decay: float = 0.1
    ema: float = 0.997
    shares: tuple[float, float] = (0.6, 0.35)
    thinning: float = 0.5
    teacher: float = 0.3
    label: float = 3.0
    sentence: float = 0.3
    repeats: float = 1.0
    judged: float = 0.35
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Texts as tokens [B, T], padded with 0; `weight` [B, T - 1] of predicting the token after each but the last."""

    tokens: Tensor
    weight: Tensor


@dataclass
class Lessons:
    """Everything drawn from the training cells."""

    sets: tuple[CellSet, ...]
    tokenizer: Tokenizer
    is_gene: Tensor  # bool [V]
    loadings: Floats  # [V, 32], where tokens of genes start
    guesses: tuple[tuple[npt.NDArray[np.str_], Floats], ...]  # of the linear model: labels [L], chances [N, L]
    plan: Plan

    @classmethod
    def of(cls, sets: Sequence[CellSet], plan: Plan) -> Lessons:
        """Choose words and ask the linear model; sees nothing but `sets`."""
        genes = frequent_genes(sets, plan.num_genes, plan.least_cells)
        labels = sorted({str(label) for cells in sets for label in cells.labels})
        others = sorted({gene for cells in sets for gene in cells.genes.words})
        tokenizer = make_tokenizer(packaged_templates(), labels, genes, others)
        is_gene = torch.zeros(tokenizer.get_vocab_size(), dtype=torch.bool)
        is_gene[gene_ids(tokenizer, genes)] = True
        guesses = tuple(out_of_fold(cells) if cells.name in SOFTENED else certain(cells) for cells in sets)
        return cls(tuple(sets), tokenizer, is_gene, loadings_of(sets, tokenizer, genes), guesses, plan)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return len(self._cut(np.arange(sum(map(len, self.sets)))))

    def _cut(
        self, order: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | None = None
    ) -> list[npt.NDArray[np.int64]]:
        """Cut texts into batches; within some batches those of like length go together."""
        batch, found = self.plan.batch, []
        for some in np.array_split(order, -(-len(order) // (8 * batch))):
            alike = some if lengths is None else some[np.argsort(lengths[some], kind="stable")]
            found += np.array_split(alike, -(-len(some) // batch))
        return found

    def epoch(self, number: int) -> list[Batch]:
        """Draw an epoch; a pure function of the seed and the number."""
        seed, templates = self.plan.seed * 100_003 + number + 1, packaged_templates()
        found: list[tuple[npt.NDArray[np.int64], Floats]] = []
        for cells, guesses in zip(self.sets, self.guesses, strict=True):
            found += self._texts(cells, guesses, seed, templates)
        key = stream_keys(seed, cell_keys(["epoch"]), ORDER)
        order = np.argsort(draws(key, np.arange(len(found), dtype=np.uint64)), kind="stable")
        chosen = self._cut(order, np.array([len(tokens) for tokens, _ in found]))
        shuffle = draws(key + np.uint64(1), np.arange(len(chosen), dtype=np.uint64))
        return [_batch([found[i] for i in chosen[n]]) for n in np.argsort(shuffle, kind="stable")]

    def _texts(
        self,
        cells: CellSet,
        guesses: tuple[npt.NDArray[np.str_], Floats],
        seed: int,
        templates: Mapping[str, Template],
    ) -> list[tuple[npt.NDArray[np.int64], Floats]]:
        """Return tokens [T] and weights [T] of one text about every cell; a weight is that of predicting its token."""
        plan, zero = self.plan, np.zeros(len(cells), np.int64)
        draw = {stream: uniforms(stream_keys(seed, cells.keys, stream), zero) for stream in (KIND, LENGTH, LABEL)}
        part = part_of(thinned(cells, plan.thinning, seed))
        ranked = rank_genes(part, cells.genes, stream_keys(seed, cells.keys, TIES), plan.num_genes)
        wanted = _lengths(draw[LENGTH], plan)
        sentences = [
            " ".join(one.split(" ")[:n]) for one, n in zip(to_sentences(ranked, cells.genes), wanted, strict=True)
        ]
        other = uniforms(stream_keys(seed, cells.keys, LABEL), zero + 1)
        labels = drawn_labels(cells, guesses, plan.teacher, draw[LABEL], other)
        kinds = np.searchsorted(np.cumsum(plan.shares), draw[KIND], side="right")
        if cells.name in ONLY_ANNOTATED:
            kinds = np.zeros_like(kinds)
        prompts, answers = [], []
        for i, name in enumerate(cells.names):
            task = templates[TASKS[kinds[i]]]
            count = wanted[i] if kinds[i] == 0 else sentences[i].count(" ") + 1  # a cell is written as long as asked
            values = {"organism": "human", "num_genes": count, "cell_type": labels[i], "cell_sentence": sentences[i]}
            prompts.append(fill(task.prompt(None, name, seed), values))
            answers.append(" " + task.answer.format(**values))
        asked = [one.ids for one in self.tokenizer.encode_batch(prompts)]
        said = [[*one.ids, END_ID] for one in self.tokenizer.encode_batch(answers)]
        worth = np.where(kinds == 0, plan.label, 1.0)
        keys = stream_keys(seed, cells.keys, JUDGED)
        return [self._weighted(*one) for one in zip(asked, said, worth, keys, strict=True)]

    def _weighted(
        self, asked: list[int], said: list[int], worth: float, key: np.uint64
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Spread the worth of an answer over its tokens, and some over the genes of the prompt."""
        tokens = np.array(asked + said)
        draw = uniforms(np.array([key]), np.arange(len(tokens)))
        genes = self.is_gene.numpy()[tokens]
        weight = np.where(genes, self.plan.sentence / self.plan.num_genes, 0.0)
        weight[len(asked) :] = worth / len(said)
        is_kept = (draw < self.plan.judged) | ~genes
        return tokens, np.where(is_kept, weight / np.where(genes, self.plan.judged, 1.0), 0.0).astype(np.float32)


def thinned(cells: CellSet, lowest: float, seed: int) -> sparse.csr_matrix:
    """Return the counts of the same cells sequenced less deeply: binomial thinning, at least one count kept."""
    keep = lowest + (1 - lowest) * uniforms(stream_keys(seed, cells.keys, DEPTH), np.zeros(len(cells), np.int64))
    state = draws(stream_keys(seed, cell_keys([cells.name]), DEPTH), np.zeros(1, np.uint64))
    generator = np.random.default_rng(int(state[0]))
    counts = cells.counts.copy()
    lengths = np.diff(counts.indptr)
    counts.data = generator.binomial(counts.data.astype(np.int64), np.repeat(keep, lengths)).astype(np.float32)
    highest = np.asarray(cells.counts.argmax(1)).ravel()
    counts[np.arange(len(cells)), highest] = np.maximum(counts[np.arange(len(cells)), highest], 1)
    counts.eliminate_zeros()
    counts.sort_indices()
    return counts


def drawn_labels(
    cells: CellSet, guesses: tuple[npt.NDArray[np.str_], Floats], teacher: float, choice: Floats, draw: Floats
) -> list[str]:
    """Return each cell's label, or, for a share of them, one drawn from the linear model's chances."""
    names, chances = guesses
    picked = (np.cumsum(chances, 1) < draw[:, None] * chances.sum(1, keepdims=True)).sum(1).clip(max=len(names) - 1)
    return [str(names[p] if c < teacher else label) for label, p, c in zip(cells.labels, picked, choice, strict=True)]


def loadings_of(sets: Sequence[CellSet], tokenizer: Tokenizer, genes: Sequence[str], width: int = 32) -> Floats:
    """Decompose the expression of all sets together: genes that go together start alike, [V, width]."""
    place = {gene: i for i, gene in enumerate(genes)}
    stacked = []
    for cells in sets:
        columns = [i for i, word in enumerate(cells.genes.words) if word in place]
        mine = np.asarray(cells.expression[:, columns].todense(), np.float32)
        z = np.zeros((len(cells), len(genes)), np.float32)
        z[:, [place[cells.genes.words[i]] for i in columns]] = (mine - mine.mean(0)) / (mine.std(0) + 0.3)
        stacked.append(z)
    right = np.linalg.svd(np.concatenate(stacked), full_matrices=False)[2][:width].T  # [G, width]
    found = np.zeros((tokenizer.get_vocab_size(), width), np.float32)
    found[gene_ids(tokenizer, genes)] = right * np.sqrt(len(genes))
    return found


def _lengths(draw: Floats, plan: Plan) -> npt.NDArray[np.int64]:
    """Half of the sentences are whole."""
    span = plan.num_genes - plan.fewest_genes
    return np.where(draw < 0.5, plan.num_genes, plan.fewest_genes + (2 * draw - 1) * span).astype(np.int64)


def _batch(texts: Sequence[tuple[npt.NDArray[np.int64], Floats]]) -> Batch:
    longest = max(len(tokens) for tokens, _ in texts)
    tokens, weight = np.zeros((len(texts), longest), np.int64), np.zeros((len(texts), longest), np.float32)
    for i, (ids, mine) in enumerate(texts):
        tokens[i, : len(ids)], weight[i, : len(ids)] = ids, mine
    return Batch(torch.from_numpy(tokens), torch.from_numpy(weight[:, 1:].copy()))
