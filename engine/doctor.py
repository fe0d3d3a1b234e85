"""A look at the machine and at the cells before any work is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from cellscribe.engine.backends.choose import remarks_of
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.device_facts import backend_facts, gpu_facts, passed_facts, plan_facts
from cellscribe.engine.dialogue_model import DialogueModel
from cellscribe.engine.errors import BackendError, BundleError
from cellscribe.engine.machine import machine_facts
from cellscribe.engine.match_model import MatchModel
from cellscribe.engine.model import Model, load
from cellscribe.engine.output.run import count
from cellscribe.engine.sentence_model import SentenceModel
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.known import gene_report
from cellscribe.engine.text_embed import embed_cells
from cellscribe.engine.types import MIN_NEW_TOKENS

AnyModel: TypeAlias = Model | SentenceModel | MatchModel | DialogueModel

NUM_TRIAL_CELLS, NUM_TOKENS = 4, 96


@dataclass(frozen=True)
class Examination:
    """What was found: labelled facts, and sentences about what to mend or mind."""

    facts: tuple[tuple[str, str], ...]
    problems: tuple[str, ...] = ()


def examine(
    cells: Path | None = None,
    bundle: str | Path = "demo",
    *,
    layer: str | None = None,
    values: Literal["auto", "counts", "lognorm"] = "auto",
    threads: int | None = None,
    backend: str = "auto",
    plans: Path | None = None,
) -> Examination:
    """Look at the machine, the bundle and, where given, a cell file.

    Parameters
    ----------
    cells
        The path of cells; None looks at machine and bundle alone.
    bundle, layer, values, threads, backend, plans
        As for describing.

    Returns
    -------
    Facts in reading order. A bundle that cannot be loaded is a problem without `cells`, and an error with them.

    Raises
    ------
    InputError
        When the cells cannot be used.
    BundleError, BackendError
        When the bundle cannot be loaded, or the backend cannot run it, and `cells` are given.
    """
    facts = [*machine_facts(), *gpu_facts()]
    loaded = partial(load, bundle, threads=threads, backend=backend, plans=plans)
    if cells is None:
        return _examine_bundle(facts, loaded, plans)
    with open_cells(cells, layer=layer, values=values) as source:
        model = loaded()
        facts += [*_bundle_facts(model, plans), *_cell_facts(model, source)]
        return Examination((*facts, ("time", _expected_time(model, source))))


def _examine_bundle(facts: list[tuple[str, str]], loaded: Callable[[], AnyModel], plans: Path | None) -> Examination:
    try:
        return Examination((*facts, *_bundle_facts(loaded(), plans)))
    except (BundleError, BackendError) as error:
        return Examination(tuple(facts), (str(error),))


def _bundle_facts(model: AnyModel, plans: Path | None) -> Iterator[tuple[str, str]]:
    manifest = model.bundle.manifest
    num_bytes = sum(record.bytes for record in manifest.files.values())
    yield "bundle", f"{model.bundle.name} ({manifest.family}, {manifest.precision}), {num_bytes / 1e6:,.1f} MB"
    yield from backend_facts(model.bundle, plans)
    yield from plan_facts(model.bundle, plans)
    yield "device", model.device
    yield from passed_facts(model.backend_choice)
    yield from (("remark", one) for one in remarks_of(model.backend_choice.backend))


def _cell_facts(model: AnyModel, source: CellSource) -> Iterator[tuple[str, str]]:
    yield "cells", f"{source.path}, {count(source.n_cells, 'cell')} × {count(source.n_genes, 'gene')}"
    yield "values", source.value_note
    if isinstance(model, SentenceModel):
        genes = SentenceGenes.of_cells(source)
        yield "genes", f"{len(genes.words):,} names as words, in sentences of {model.text.num_genes}"
        said = gene_report(source, model.text.settings.organism).get("sentence")
        if said:
            yield "names", str(said)
        return
    if isinstance(model, DialogueModel):
        yield "genes", model.instruct.cells(source).sentence()
        return
    if isinstance(model, MatchModel):
        yield "genes", model.ranks.tokenizer(source).report.sentence()
        return
    yield "genes", str(model.gene_report(source)["sentence"])


def _expected_time(model: AnyModel, source: CellSource) -> str:
    """Time a few cells, then scale: a token costs the same whichever it is."""
    rows = np.unique(np.linspace(0, source.n_cells - 1, NUM_TRIAL_CELLS).astype(np.int64))
    started = time.perf_counter()
    if isinstance(model, DialogueModel):
        answers = model.instruct.about_cells(source, rows=rows, batch_size=len(rows))
        each = (time.perf_counter() - started) / len(answers)
        return f"at most about {duration(each * source.n_cells)} to annotate all cells, less for many at a time"
    if isinstance(model, SentenceModel):
        embedded = embed_cells(model.text, source, rows=rows)
    else:
        embedded = (model.ranks if isinstance(model, MatchModel) else model).embed_cells(source, rows=rows)
    encoding = (time.perf_counter() - started) / len(rows)
    if isinstance(model, SentenceModel | MatchModel) or not model.bundle.describes:
        return f"about {duration(encoding * source.n_cells)} to embed all cells"
    started = time.perf_counter()
    run = model.describe_cells(source, rows=rows, max_new_tokens=MIN_NEW_TOKENS, batch_size=len(rows))
    if not run.num_tokens:
        return f"not known; none of {count(len(embedded.rows), 'trial cell')} could be described"
    writing = max(time.perf_counter() - started - encoding * len(rows), 0.0) / run.num_tokens
    total = source.n_cells * (encoding + NUM_TOKENS * writing)
    return f"at most about {duration(total)} for all cells, at {NUM_TOKENS} tokens each"


def duration(seconds: float) -> str:
    """Say a time roughly: "40 s", "12 min", "3.5 h", "2.1 days"."""
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.0f} {name}" if value >= 10 else f"{value:.1f} {name}"
    return f"{seconds / 86400:.1f} days"
