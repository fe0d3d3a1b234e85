"""What a description says: cell type, tissue, state and genes, each in one of several wordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cells import Cells, Floats, is_nameable, specificity

TISSUE = "human peripheral blood"
TYPES = {
    "CD14+ Monocyte": "CD14+ monocyte",
    "CD19+ B": "CD19+ B cell",
    "CD34+": "CD34+ hematopoietic progenitor cell",
    "CD4+/CD25 T Reg": "CD4+CD25+ regulatory T cell",
    "CD4+/CD45RA+/CD25- Naive T": "CD4+CD45RA+CD25- naive T cell",
    "CD4+/CD45RO+ Memory": "CD4+CD45RO+ memory T cell",
    "CD56+ NK": "CD56+ natural killer cell",
    "CD8+ Cytotoxic T": "CD8+ cytotoxic T cell",
    "CD8+/CD45RA+ Naive Cytotoxic": "CD8+CD45RA+ naive cytotoxic T cell",
    "Dendritic": "dendritic cell",
}
PROGRAMMES = {
    "cytotoxic": "NKG7 GNLY GZMA GZMB GZMH GZMK GZMM PRF1 CST7 CTSW FGFBP2 CCL4 CCL5",
    "inflammatory": "S100A8 S100A9 LYZ FCN1 IL1B SOD2 G0S2 MNDA CFD TYROBP",
    "presenting": "CD74 HLA-DRA HLA-DRB1 HLA-DPA1 HLA-DPB1 HLA-DQA1 HLA-DQB1 HLA-DMA HLA-DMB HLA-DRB5",
    "stimulated": "FOS JUNB EGR1 KLF6 DUSP2 NFKBIA ZFP36L2 CXCR4 BTG1",
    "interferon": "ISG20 LY6E OAS1 IRF1 IRF7 BST2 SP100 SP110 IFITM1",
    "naive": "CCR7 MAL LDHB NOSIP PIK3IP1 IL7R CAMK4 CD27 FLT3LG",
    "respiring": "NDUFA1 NDUFA4 NDUFA11 NDUFB2 NDUFB7 NDUFS5 COX6A1 COX7B COX7C ATP5B ATP5I ATP5J2 ATP5O UQCRC1",
    "translating": "EIF3D EIF3E EIF3I EIF3L EIF4A1 EIF4A2 EIF4H NPM1 NCL HNRNPA1 RPS24 RPL39 IMPDH2",
    "secreting": "MZB1 IGJ SSR3 SSR4 SPCS2 FKBP11 MANF SDF2L1 TRAM1 SEC62",
}
STATES = {
    "cycling": (
        "in the cell cycle, with DNA replication genes switched on",
        "proliferating, with replication genes raised",
    ),
    "cytotoxic": ("armed for cytotoxic killing, with granule genes raised", "in a cytotoxic effector state"),
    "inflammatory": (
        "in an inflammatory state, with alarmin genes raised",
        "inflammatory, with alarmins strongly expressed",
    ),
    "presenting": ("geared to antigen presentation, with MHC class II genes raised", "active in antigen presentation"),
    "stimulated": (
        "recently stimulated, with immediate early genes raised",
        "stimulated, as immediate early genes show",
    ),
    "interferon": (
        "responding to interferon, with interferon-induced genes raised",
        "in an interferon-responsive state",
    ),
    "naive": ("in a resting, naive-like state", "naive-like and at rest"),
    "respiring": ("metabolically active, with respiratory chain genes raised", "active in oxidative metabolism"),
    "translating": ("biosynthetically active, with translation genes raised", "active in protein synthesis"),
    "secreting": ("in a secretory state, with endoplasmic reticulum genes raised", "active in protein secretion"),
    "quiet": ("quiescent, with no activation programme standing out", "in a quiet state without marked activation"),
}
OPENINGS = (
    "This cell is a {type} from {tissue}.",
    "The expression profile is that of a {type} from {tissue}.",
    "These transcripts point to a {type} of {tissue}.",
    "The profile identifies a {type} from {tissue}.",
)
STATE_FRAMES = (
    "It is {state}.",
    "The cell is {state}.",
    "Functionally, it is {state}.",
    "The cell appears to be {state}.",
)
GENE_FRAMES = (
    "It expresses {genes}.",
    "Its most telling transcripts are {genes}.",
    "The evidence includes expression of {genes}.",
    "Characteristic genes detected are {genes}.",
)
CYCLING_SCORE = 0.4  # of the S or G2M score
RAISED = 0.8  # standard deviations above the mean of the training cells


@dataclass(frozen=True)
class Writer:
    """Writes texts about cells; everything it knows comes from the training cells."""

    genes: tuple[str, ...]
    nameable: Floats  # [G], 1 where a text may name the gene
    scores: dict[str, Floats]  # label -> [G], how telling the gene is in such a cell
    programmes: dict[str, list[int]]
    mean: Floats  # [programmes]
    spread: Floats  # [programmes]

    @classmethod
    def fit(cls, train: Cells) -> Writer:
        """Learn specificity and the usual level of each programme."""
        own = specificity(train)
        best = np.max(list(own.values()), axis=0)
        index = {gene: i for i, gene in enumerate(train.genes)}
        programmes = {k: [index[g] for g in v.split() if g in index] for k, v in PROGRAMMES.items()}
        levels = programme_levels(train.expression, programmes)
        nameable = np.array([is_nameable(gene) for gene in train.genes], np.float32)
        scores = {label: score + 0.2 * best for label, score in own.items()}
        return cls(train.genes, nameable, scores, programmes, levels.mean(0), levels.std(0))

    def states(self, cells: Cells) -> list[str]:
        """Name each cell's state: cycling by its published score, else the programme raised most, else quiet."""
        z = (programme_levels(cells.expression, self.programmes) - self.mean) / self.spread  # [N, programmes]
        names = np.array(list(self.programmes))
        found = np.where(z.max(1) >= RAISED, names[z.argmax(1)], "quiet")
        return [str(s) for s in np.where(cells.cycle.max(1) >= CYCLING_SCORE, "cycling", found)]

    def telling_genes(self, label: str, values: Floats) -> Floats:
        """Score each gene [G] for being named: specificity times expression, 0 where it is not expressed."""
        return self.scores[label] * self.nameable * values / max(float(values.max()), 1e-6)

    def pick_genes(self, label: str, values: Floats, rng: np.random.Generator, noise: float) -> list[str]:
        """Choose four to six expressed genes, most telling first; `noise` varies the choice between texts."""
        score = self.telling_genes(label, values)
        with np.errstate(divide="ignore"):
            order = np.argsort(-(np.log(score) + noise * rng.gumbel(size=score.shape)), kind="stable")
        return [self.genes[g] for g in order[: rng.integers(4, 7)] if score[g] > 0]

    def write(self, label: str, state: str, values: Floats, rng: np.random.Generator, noise: float = 0.25) -> str:
        """Describe a cell whose log-normalised expression is `values` [G]."""
        genes = self.pick_genes(label, values, rng, noise)
        parts = (
            _choose(OPENINGS, rng).format(type=TYPES[label], tissue=TISSUE),
            _choose(STATE_FRAMES, rng).format(state=_choose(STATES[state], rng)),
            _choose(GENE_FRAMES, rng).format(genes=", ".join(genes[:-1]) + " and " + genes[-1]),
        )
        return " ".join(parts)


def programme_levels(expression: Floats, programmes: dict[str, list[int]]) -> Floats:
    """Return the mean log-normalised expression of each programme, [N, programmes]."""
    return np.stack([expression[:, genes].mean(1) for genes in programmes.values()], 1)


def programme_genes() -> set[str]:
    """Return every gene that some programme counts, and the replication genes."""
    return set(" ".join(PROGRAMMES.values()).split()) | {"PCNA", "MCM7", "STMN1", "HMGB2", "HIST1H4C"}


def named_type(text: str) -> str | None:
    """Return the label whose name the text contains, the longest if several."""
    found = [label for label, name in TYPES.items() if name in text]
    return max(found, key=lambda label: len(TYPES[label]), default=None)


def named_state(text: str) -> str | None:
    """Return the state one of whose wordings the text contains."""
    return next((state for state, words in STATES.items() if any(w in text for w in words)), None)


def named_genes(text: str, genes: Sequence[str]) -> list[str]:
    """Return those of `genes` that stand in the text as whole words, in the order of the text."""
    known = set(genes)
    return [word for word in (w.strip(".,;:()") for w in text.split()) if word in known]


def _choose(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
