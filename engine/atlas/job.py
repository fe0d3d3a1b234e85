"""What is asked of an atlas."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cellscribe.engine.cells.spec import HvgFlavor
from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.types import Sampling, check_max_new_tokens

Task = Literal["describe", "embed", "annotate"]
TASKS: tuple[Task, ...] = ("describe", "embed", "annotate")
SHARD_CELLS = 4096
TOP_GENES = 10
OF_TEXTS = ("sampling", "top_genes", "max_new_tokens")  # parameters; the last one counts for written labels, too
_MAX_SHARD_CELLS = 1 << 20


@dataclass(frozen=True)
class AtlasJob:
    """One task over all cells of an atlas; everything that its results depend on, beside bundle and cells.

    Parameters
    ----------
    task
        ``describe`` (texts, and vectors), ``embed`` (vectors) or ``annotate`` (labels).
    bundle
        Bundle folder, or "demo".
    shard_cells
        Cells of a shard at most; one never holds cells of two files.
    limit
        The first cells of those that are chosen; None for all.
    where
        A condition on columns of obs (:mod:`cellscribe.engine.atlas.where`); None for all cells.
    layer, values
        See :func:`cellscribe.engine.cells.open_cells`.
    sampling, max_new_tokens, top_genes
        Of texts; `max_new_tokens` None takes the task's own.
    labels
        File of labels to choose from.
    genes, hvg_flavor
        Of bundles that want highly variable genes.
    organism, genes_per_cell
        Of bundles that read sentences.
    seed
        Key of the draws that break ties.
    report_by
        A column of obs that results are told apart by: the report says which genes were attended to in each of its
        groups.
    per_cluster
        The column of obs whose groups get a text each (:mod:`cellscribe.engine.atlas.clusters`).
    cells_where
        Of such a run, which of its cells get a text each; a condition beside `where`.
    """

    task: Task
    bundle: str = "demo"
    shard_cells: int = SHARD_CELLS
    limit: int | None = None
    where: str | None = None
    layer: str | None = None
    values: Literal["auto", "counts", "lognorm"] = "auto"
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int | None = None
    top_genes: int = TOP_GENES
    labels: Path | None = None
    genes: Path | None = None
    hvg_flavor: HvgFlavor | None = None
    organism: str = "human"
    genes_per_cell: int | None = None
    seed: int = 0
    report_by: str | None = None
    per_cluster: str | None = None
    cells_where: str | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UsageError(f"--task is {self.task!r}; choose {', '.join(TASKS[:-1])} or {TASKS[-1]}.")
        if not 1 <= self.shard_cells <= _MAX_SHARD_CELLS:
            raise UsageError(f"--shard-cells is {self.shard_cells}; choose a number from 1 to {_MAX_SHARD_CELLS:,}.")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit is {self.limit}; choose at least 1.")
        if self.labels is not None and self.task != "annotate":
            raise UsageError(f"--labels go with --task annotate, not with {self.task}; leave them out.")
        asked = {
            "sampling": not self.sampling.is_greedy,
            "top_genes": self.top_genes != TOP_GENES,
            "max_new_tokens": self.max_new_tokens is not None,
        }
        for name in self.idle:
            if asked[name]:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} has no effect on --task {self.task}; leave it out.")
        if self.task == "describe":
            check_max_new_tokens(self.new_tokens)

    @property
    def idle(self) -> tuple[str, ...]:
        """Parameters that the results do not depend on."""
        if self.task == "describe" or self.per_cluster is not None:
            return ()
        return OF_TEXTS if self.task == "embed" else OF_TEXTS[:2]

    @property
    def condition(self) -> str | None:
        """What has to hold of a cell; None for all cells."""
        both = [one for one in (self.where, self.cells_where) if one is not None]
        return f"({both[0]}) and ({both[1]})" if len(both) == 2 else both[0] if both else None

    @property
    def new_tokens(self) -> int:
        """Tokens of a text at most."""
        return self.max_new_tokens or (96 if self.task == "describe" else 32)

    def settings(self) -> dict[str, Any]:
        """Return what the manifest keeps and a resumed run must agree with."""
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        lists = {f"{name}_hash": _hash(path) for name, path in (("labels", self.labels), ("genes", self.genes))}
        return {**plain, "max_new_tokens": self.new_tokens, **lists, **dict.fromkeys(self.idle)}


def _hash(path: Path | None) -> str | None:
    """Return what changes with the contents of a list."""
    if path is None:
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the name.") from error


@dataclass(frozen=True)
class Running:
    """How an atlas is run; results do not depend on it.

    Parameters
    ----------
    workers
        Processes with a model each, on cores of their own.
    threads
        CPU threads of each; None shares the cores among the workers.
    backend, plans
        See :class:`cellscribe.engine.source_model.SourceModel`.
    batch_size
        Texts in progress at a time.
    is_strict
        Whether an input that cannot be read ends the run.
    ray_address
        Head of the Ray cluster of ``--engine ray``; None takes ``RAY_ADDRESS``, or starts one on this machine.
    """

    workers: int = 1
    threads: int | None = None
    backend: str = "auto"
    plans: Path | None = None
    batch_size: int = 32
    is_strict: bool = False
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"--workers is {self.workers}; choose at least 1.")
        if not 1 <= self.batch_size <= 512:
            raise UsageError(f"--batch-size is {self.batch_size}; choose a whole number from 1 to 512.")
