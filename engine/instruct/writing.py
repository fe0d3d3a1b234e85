"""Cells that a bundle writes: an instruction, the model's signal that a cell follows, and counts drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.backends.instruct import Profiles, require_profiles
from cellscribe.engine.bundle.load import DISPERSION
from cellscribe.engine.decode.scheduler import Text
from cellscribe.engine.errors import BackendError, BundleError
from cellscribe.engine.instruct.fields import check_fields, check_own, check_used
from cellscribe.engine.instruct.prompts import framed
from cellscribe.engine.instruct.sampling import are_finite, cut_rates_note, draw_counts, draw_latents, expected_counts
from cellscribe.engine.instruct.templates import GENERATION, Chosen, own_instruction
from cellscribe.engine.instruct_model import InstructModel
from cellscribe.engine.output.run import count
from cellscribe.engine.text_types import Answer
from cellscribe.engine.types import Sampling, check_written

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int, int], None]  # cells done, cells in all, tokens so far

_PROFILES = 64  # conditions that are decoded together
_NOT_FINITE = "the model's rates are not finite"


@dataclass(frozen=True)
class CellOrder:
    """Which cells are wanted.

    Parameters
    ----------
    count
        How many.
    fields
        Values for the instruction, which must name them: ``cell_type``, ``tissue``, ``species``,
        ``sequencing_method``. They also become columns of obs, empty for a cell whose drawn instruction does not.
    instruction
        In a user's own words, with fields in braces, in place of our templates.
    number, draws
        Which instruction of the templates; or one drawn for every cell.
    sampling
        How the model's words are chosen; greedy writes the same words for the same instruction, cells differ all the
        same.
    seed
        Key of the draws, with a cell's name.
    means
        Give the means of the counts' distribution instead of drawn counts.
    """

    count: int
    fields: Mapping[str, str] = field(default_factory=dict)
    instruction: str | None = None
    number: int | None = None
    draws: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    means: bool = False
    max_new_tokens: int = 64
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_written("cell", self.count)
        check_own(self.instruction, self.number, self.draws)


def write_cells(model: InstructModel, order: CellOrder, progress: Progress | None = None) -> tuple[AnnData, str]:
    """Let the model write cells.

    Returns
    -------
    Cells with counts in X over the model's genes; obs has the order's fields and the model's ``answer``, uns
    ``cellscribe`` what the result depends on, with the whole ``prompt``, which is in obs where one is drawn. And what
    became of the cells, in words. Cells are called ``generated_0`` and so on, and keep their names where others could
    not be written: there are gaps then.

    Raises
    ------
    UsageError
        For an instruction that names a cell or lacks a value, or a value that it does not name.
    BackendError
        When the model answers without a cell each time.
    BundleError
        When the bundle writes no cells, or a gene's dispersion is no number.
    """
    require_profiles(model.bundle, model.shapes.profile)
    names = [f"generated_{i}" for i in range(order.count)]
    asking = _instructions(model, order, names)
    texts = [framed(one.text, model.prompts.cell) for one in asking]
    # The words that are chosen greedily depend on the instruction alone: each is answered once.
    is_once = order.sampling.is_greedy
    asked = list(dict.fromkeys(texts)) if is_once else texts
    conditions: dict[int, Floats] = {}

    def keep(place: int, text: Text) -> None:
        if text.condition is not None:
            conditions[place] = text.condition

    answers = model.about_prompts(
        asked if is_once else names, asked, sampling=order.sampling, max_new_tokens=order.max_new_tokens,
        batch_size=order.batch_size, on_text=keep,
    )  # fmt: skip
    place_of = {text: i for i, text in enumerate(asked)}
    places = [place_of[text] for text in texts] if is_once else list(range(len(texts)))
    good = [i for i, place in enumerate(places) if place in conditions]
    if not good:
        if all(one.status != "ok" for one in answers):
            raise BackendError(f"no cell was written ({_why(answers)}); try again, or another backend.")
        if all(one.is_cut for one in answers if one.status == "ok"):
            raise BackendError(
                f"the model's words were cut off at {count(order.max_new_tokens, 'token')}, before a cell could "
                "follow; allow more (--max-new-tokens, max_new_tokens)."
            )
        raise BackendError(f"the model answered without a cell ({_said(answers)}); ask for a cell in other words.")
    chosen = np.stack([conditions[places[i]] for i in good])
    counts, is_finite = _profiles(model, [names[i] for i in good], chosen, order, progress)
    kept = [(names[i], asking[i], answers[places[i]]) for i, is_kept in zip(good, is_finite, strict=True) if is_kept]
    if not kept:
        raise BackendError(f"no cell was written ({_NOT_FINITE}); try again, or another backend.")
    model.notice = " ".join(one for one in (model.notice, "" if order.means else cut_rates_note(counts)) if one)
    cells = _laid_out(model, order, kept, counts)
    whys = [one.status for one in (answers[place] for place in places) if one.status != "ok"]
    whys += [_NOT_FINITE] * (len(good) - len(kept))
    silent = [i for i, place in enumerate(places) if place not in conditions and answers[place].status == "ok"]
    said = f"{count(len(kept), 'cell')} of {count(len(model.genes), 'gene')}"
    said += f", {counts.nnz / len(kept):,.0f} expressed in each"
    if silent:
        first = f"{asking[silent[0]].text!r} ({_said([answers[places[silent[0]]]])})"
        said += f"; {count(len(silent), 'answer')} had no cell, first to {first}"
    return cells, said + (f"; {len(whys):,} failed, first: {whys[0].removeprefix('failed: ')}" if whys else "")


def check_order(model: InstructModel, order: CellOrder) -> None:
    """Raise what :func:`write_cells` raises for the instructions of an order and their values, before it is run."""
    _instructions(model, replace(order, count=1), ["generated_0"])


def _instructions(model: InstructModel, order: CellOrder, names: Sequence[str]) -> list[Chosen]:
    check_fields(order.fields, model.prompts.cell)
    own = None if order.instruction is None else own_instruction(order.instruction)
    task, drawn = own or model.task(GENERATION), order.seed if order.draws else None
    check_used(order.fields, task.named(order.number, order.fields, order.draws), task, order.fields)
    if drawn is None:
        return [task.pick(order.number, order.fields)] * len(names)
    return [task.pick(order.number, order.fields, name, drawn) for name in names]


def _profiles(
    model: InstructModel, names: Sequence[str], conditions: Floats, order: CellOrder, progress: Progress | None
) -> tuple[sp.csr_matrix, npt.NDArray[np.bool_]]:
    """Return the values of the cells whose profile is finite [n, G], and which they are [N]."""
    shape = require_profiles(model.bundle, model.shapes.profile)
    theta = model.bundle.tensors(DISPERSION)["theta"].astype(np.float32)
    if np.isnan(theta).any():
        gene = model.genes[int(np.argmax(np.isnan(theta)))]
        raise BundleError(f"the dispersion of the gene {gene} in {model.bundle.name} is no number; export it again.")
    parts, flags = [], []
    for start in range(0, len(names), _PROFILES):
        some = names[start : start + _PROFILES]
        latents, libraries = draw_latents(some, shape, order.seed)
        found = model.runtime.write_profiles(conditions[start : start + len(some)], latents, libraries)
        flags.append(are_finite(found))
        some = [name for name, is_kept in zip(some, flags[-1], strict=True) if is_kept]
        found = Profiles(found.rates[flags[-1]], found.dropout[flags[-1]])
        if some:
            parts.append(expected_counts(found) if order.means else draw_counts(some, found, theta, order.seed))
        if progress:
            progress(min(start + _PROFILES, len(names)), len(names), 0)
    values = sp.vstack(parts) if parts else sp.csr_matrix((0, len(model.genes)))
    return sp.csr_matrix(values), np.concatenate(flags)


def _laid_out(
    model: InstructModel, order: CellOrder, kept: Sequence[tuple[str, Chosen, Answer]], counts: sp.csr_matrix
) -> AnnData:
    obs = pd.DataFrame(index=pd.Index([name for name, _, _ in kept]))
    for name, text in order.fields.items():
        obs[name] = pd.Categorical([text if name in asked.fields else None for _, asked, _ in kept])
    obs["answer"] = [one.text for _, _, one in kept]
    prompts = [framed(asked.text, model.prompts.cell) for _, asked, _ in kept]
    if order.draws:
        obs["prompt"] = pd.Categorical(prompts)
    cells = AnnData(X=counts, obs=obs, var=pd.DataFrame(index=pd.Index(model.genes)))
    template = "drawn" if order.draws else "the first that fits" if order.number is None else order.number
    settings = model.settings_of(
        None, sampling=order.sampling.label(), seed=order.seed, values="means" if order.means else "counts",
        fields=dict(order.fields), max_new_tokens=order.max_new_tokens,
        **({} if order.draws else {"prompt": prompts[0]}),
        **({"template": template} if order.instruction is None else {"instruction": order.instruction}),
    )  # fmt: skip
    cells.uns["cellscribe"] = {name: str(value) for name, value in settings.items()}
    return cells


def _why(answers: Sequence[Answer]) -> str:
    return next(one.status for one in answers if one.status != "ok").removeprefix("failed: ")


def _said(answers: Sequence[Answer]) -> str:
    first = next((one.text for one in answers if one.text), "")
    return f"it said {first[:60]!r}" if first else "it said nothing"
