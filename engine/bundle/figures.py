"""What was measured of a bundle when it was made: how far it is from torch, and what quantising cost."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Parity:
    """How far the graphs are from the torch model on the cells of reference.safetensors.

    Largest absolute differences of memory, cell embedding and logits, the smallest cosine of memory rows, and the
    share of `tokens` greedy steps on which both choose the same token (near-ties left out, `near_ties` of them; in a
    quantised bundle every step counts). `tolerance` is what passes for each figure; that of a quantised bundle was
    measured when it was made.
    """

    cells: int
    source: str
    memory_max_error: float
    memory_min_cosine: float
    cell_max_error: float
    logits_max_error: float | None = None
    greedy_agreement: float | None = None
    tokens: int = 0
    near_ties: int = 0
    tolerance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Quality:
    """What quantising cost, measured with ONNX Runtime on the CPU against the fp32 bundle of hash `compared_with`.

    Cosines of memory rows and the largest absolute difference of the cell embeddings of `cells` cells. The fp32
    bundle wrote `tokens` tokens about them greedily: `greedy_agreement` is the share of these that the quantised one
    chooses too when it has read the same text so far, and the perplexities are those that both give to that text.
    """

    cells: int
    source: str
    compared_with: str
    memory_min_cosine: float
    memory_mean_cosine: float
    cell_max_error: float
    tokens: int = 0
    greedy_agreement: float | None = None
    perplexity: float | None = None
    perplexity_fp32: float | None = None

    def words(self) -> str:
        """Say it in one line."""
        said = f"{self.cells} cells ({self.source}; with ONNX Runtime): memory cosine {self.memory_mean_cosine:.6f} "
        said += f"(at least {self.memory_min_cosine:.6f}), cell embedding within {self.cell_max_error:.2g}"
        if self.greedy_agreement is not None:
            said += f"; the token of fp32 at {self.greedy_agreement:.1%} of {self.tokens:,} greedy steps"
        if self.perplexity is not None and self.perplexity_fp32 is not None:
            said += f", perplexity of its text {self.perplexity:.4g} (fp32: {self.perplexity_fp32:.4g})"
        return said


@dataclass(frozen=True)
class TextParity:
    """How far decoder.onnx is from the torch model on the prompts of reference.safetensors.

    Largest absolute differences of logits and of embeddings (masked means of the last states), and the share of
    `tokens` greedy steps on which both choose the same token (near-ties left out, `near_ties` of them; in a quantised
    bundle every step counts). `tolerance` is what passes for each figure.
    """

    prompts: int
    source: str
    logits_max_error: float
    embedding_max_error: float
    greedy_agreement: float | None
    tokens: int
    near_ties: int
    tolerance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TextQuality:
    """What quantising a bundle without an encoder cost, measured as :class:`Quality` is, on prompts about real cells.

    Cosines and the largest absolute difference of the embeddings (masked means of the last states) of `prompts`
    prompts. The fp32 bundle of hash `compared_with` went on with these prompts greedily for `tokens` tokens in all:
    `greedy_agreement` is the share of them that the quantised one chooses too when it has read the same text so far,
    and the perplexities are those that both give to that text.
    """

    prompts: int
    source: str
    compared_with: str
    embedding_min_cosine: float
    embedding_mean_cosine: float
    embedding_max_error: float
    tokens: int
    greedy_agreement: float
    perplexity: float
    perplexity_fp32: float

    def words(self) -> str:
        """Say it in one line."""
        said = f"{self.prompts} prompts ({self.source}; with ONNX Runtime): embedding cosine "
        said += f"{self.embedding_mean_cosine:.6f} (at least {self.embedding_min_cosine:.6f})"
        said += f"; the token of fp32 at {self.greedy_agreement:.1%} of {self.tokens:,} greedy steps"
        return f"{said}, perplexity of its text {self.perplexity:.4g} (fp32: {self.perplexity_fp32:.4g})"


@dataclass(frozen=True)
class MatchParity:
    """How far the graphs of a bundle that reads ranks are from the torch model on what reference.safetensors holds.

    Largest absolute differences of the states and vectors of `cells` cells, of the vectors of `texts` texts, and of the
    probabilities that they match; the last two are None where a bundle has no texts. `tolerance` is what passes.
    """

    cells: int
    source: str
    states_max_error: float
    vectors_max_error: float
    texts: int = 0
    texts_max_error: float | None = None
    match_max_error: float | None = None
    tolerance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MatchQuality:
    """What quantising a bundle that reads ranks cost, measured as :class:`Quality` is.

    Cosines and the largest absolute difference of the vectors of `cells` cells; with `texts` texts the largest
    difference of the probabilities that they match, and for how many of the cells the best text of all is the same.
    """

    cells: int
    source: str
    compared_with: str
    vectors_min_cosine: float
    vectors_mean_cosine: float
    vectors_max_error: float
    texts: int = 0
    match_max_error: float | None = None
    same_label: float | None = None

    def words(self) -> str:
        """Say it in one line."""
        said = f"{self.cells} cells ({self.source}; with ONNX Runtime): cosine of vectors "
        said += f"{self.vectors_mean_cosine:.6f} (at least {self.vectors_min_cosine:.6f})"
        if self.match_max_error is not None and self.same_label is not None:
            said += (
                f"; of {self.texts} texts the same is best for {self.same_label:.1%} of the cells, probabilities of "
            )
            said += f"matching within {self.match_max_error:.2g}"
        return said


@dataclass(frozen=True)
class InstructParity:
    """How far the graphs of a bundle that follows instructions are from torch on what reference.safetensors holds.

    Largest absolute differences of the tower's features of `cells` cells, of the encoder's states of `prompts` prompts,
    and of the logits before `tokens` tokens after them; the largest difference of the rates of profiles as a share of
    each cell's largest rate, None where no cells are written.
    `greedy_agreement` is the share of steps on which both choose the same token (near-ties left out, `near_ties` of
    them; in a quantised bundle every step counts). `tolerance` is what passes.
    """

    cells: int
    prompts: int
    source: str
    features_max_error: float
    states_max_error: float
    logits_max_error: float
    greedy_agreement: float | None
    tokens: int
    near_ties: int
    rates_max_error: float | None = None
    tolerance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class InstructQuality:
    """What quantising a bundle that follows instructions cost, measured as :class:`Quality` is, on real cells.

    Cosines of the tower's features of `cells` cells. The fp32 bundle answered a prompt about each greedily, `tokens`
    tokens in all: `greedy_agreement` is the share of them that the quantised one chooses too when it has read the same
    text so far, and the perplexities are those that both give to that text. `rates_max_error` as in the parity.
    """

    cells: int
    source: str
    compared_with: str
    features_min_cosine: float
    features_mean_cosine: float
    tokens: int
    greedy_agreement: float
    perplexity: float
    perplexity_fp32: float
    rates_max_error: float | None = None

    def words(self) -> str:
        """Say it in one line."""
        said = f"{self.cells} cells ({self.source}; with ONNX Runtime): cosine of features "
        said += f"{self.features_mean_cosine:.6f} (at least {self.features_min_cosine:.6f})"
        said += f"; the token of fp32 at {self.greedy_agreement:.1%} of {self.tokens:,} greedy steps"
        said += f", perplexity of its text {self.perplexity:.4g} (fp32: {self.perplexity_fp32:.4g})"
        if self.rates_max_error is not None:
            said += f"; rates of profiles within {self.rates_max_error:.2g} of each cell's largest"
        return said
