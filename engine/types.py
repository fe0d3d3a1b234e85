"""The values that pass between cells, decoder and outputs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import UsageError

MIN_NEW_TOKENS, MAX_NEW_TOKENS = 32, 256
MAX_WRITTEN = 10_000_000  # cells or samples of one call, which are held in memory
DEFAULT_TOP_P = 0.9
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 10.0


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Parameters
    ----------
    top_p
        Nucleus size in (0, 1]: the smallest set of most probable tokens whose mass reaches it.
    temperature
        Logits are divided by it; 0 is greedy (always the most probable token).
    seed
        Key of the random numbers, together with the cell's name and the token's position.

    Raises
    ------
    UsageError
        For a value out of range.
    """

    top_p: float = 1.0
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top_p is {self.top_p:g}; choose a value above 0 and at most 1.")
        if self.temperature != 0.0 and not MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE:
            raise UsageError(
                f"temperature is {self.temperature:g}; "
                f"choose 0 (greedy), or a value from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}."
            )
        if self.is_greedy and self.top_p < 1.0:
            raise UsageError(f"top_p {self.top_p:g} has no effect on greedy sampling; give a temperature, as in 0.7.")

    @classmethod
    def of(cls, top_p: float | None, temperature: float, seed: int) -> Sampling:
        """Make one of a nucleus, 0.9 for None where something is drawn; one that is given needs a temperature."""
        if top_p is None:
            return cls(DEFAULT_TOP_P if temperature else 1.0, temperature, seed)
        cls(top_p, temperature or 1.0, seed)
        return cls(top_p, temperature, seed)

    @property
    def is_greedy(self) -> bool:
        """Whether no random number is drawn."""
        return self.temperature == 0.0

    def label(self) -> str:
        """Say it in words, for headers and for ``uns``."""
        if self.is_greedy:
            return "greedy"
        return f"top-p {self.top_p:g}, temperature {self.temperature:g}, seed {self.seed}"


@dataclass(frozen=True)
class TopGenes:
    """The genes that a text attended to most.

    ``symbols`` and ``weights`` [K] run from the most attended gene down; weights are shares of the attention that
    went to genes, so that all genes together sum to 1. ``columns`` [K] are their indices in the input's var.
    """

    symbols: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    columns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Description:
    """What the model wrote about one cell (or one pool of cells).

    ``mean_logprob`` is the mean natural log-probability of the generated tokens under the model, before temperature;
    ``latency_ms`` the time from admission to a slot until the last token; ``named_genes`` those of the top genes that
    the text names; ``status`` is "ok" or "failed: <why>".
    """

    cell_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    mean_logprob: float = float("nan")
    latency_ms: float = float("nan")
    finish_reason: str = ""  # "stop": end of text; "length": max_new_tokens
    top_genes: TopGenes = field(default_factory=TopGenes)
    named_genes: tuple[str, ...] = ()
    status: str = "ok"

    @property
    def num_tokens(self) -> int:
        """How many tokens were generated, the end of text not counted."""
        return len(self.token_ids)

    @property
    def grounding(self) -> float:
        """Share of the top genes that the text names, 0..1 (NaN without top genes)."""
        total = len(self.top_genes.symbols)
        return len(self.named_genes) / total if total else float("nan")

    @property
    def is_ok(self) -> bool:
        """Whether the cell was described."""
        return self.status == "ok"


@dataclass(frozen=True)
class Piece:
    """One generated token as it appears: the text it adds and the genes attended to while it was chosen.

    ``running_genes`` are the top genes of the text so far; after the last token they are those of the description.
    """

    text: str
    token_id: int
    logprob: float
    top_genes: TopGenes
    running_genes: TopGenes = field(default_factory=TopGenes)


@dataclass(frozen=True)
class AttentionRecord:
    """Cross-attention of one text: ``weights`` float16 [layers, heads, tokens, S] over ``genes`` [S]."""

    cell_id: str
    genes: tuple[str, ...]
    weights: npt.NDArray[np.float16]


def check_whole(name: str, value: int, most: int | None = None) -> int:
    """Return `value`, or raise UsageError when it is no whole number from 1 on, or above `most`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} is {value!r}; choose a whole number, at least 1.")
    if most is not None and value > most:
        raise UsageError(f"{name} is {value:,}; choose at most {most:,} for one call.")
    return int(value)


def check_written(noun: str, value: int) -> int:
    """Return how many cells (or samples, its `noun`) are to be written; UsageError as :func:`check_whole`."""
    return check_whole(f"the number of {noun}s (-n, n)", value, MAX_WRITTEN)


def check_seed(value: int) -> int:
    """Return `value`, or raise UsageError when it is no whole number from 0 to 2**63 - 1."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise UsageError(f"seed is {value!r}; choose a whole number from 0 to 2**63 - 1.")
    return int(value)


def check_max_new_tokens(value: int) -> int:
    """Return `value`, or raise UsageError when it is out of range."""
    if not MIN_NEW_TOKENS <= value <= MAX_NEW_TOKENS:
        raise UsageError(f"max_new_tokens is {value}; choose a whole number from {MIN_NEW_TOKENS} to {MAX_NEW_TOKENS}.")
    return value
