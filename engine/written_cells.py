"""What becomes of sentences that a model wrote as cells: those that failed left out, cut words too, and how it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
from anndata import AnnData

from cellscribe.engine.errors import InputError
from cellscribe.engine.output.fields import plain
from cellscribe.engine.output.run import count
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.sentences.read import cells_of
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import Answer
from cellscribe.engine.types import Sampling


def laid_out(
    found: Sequence[Answer],
    genes: SentenceGenes,
    line: Inverse,
    said: Mapping[str, str],
    per_sample: int | None,
    num_genes: int,
) -> tuple[AnnData, str]:
    """Make cells of answers that did not fail and name a gene, and say what was found in their sentences.

    Parameters
    ----------
    said
        What was said of all cells, columns of obs.
    per_sample
        Cells of an answer, one a line, at most; None where an answer is a cell.
    num_genes
        Words of a sentence at most: what goes beyond them is cut off, and a sentence that ended at the limit of its
        tokens loses its last word before, which may be cut itself: CD7 of CD74 is a gene.

    Raises
    ------
    InputError
        When all failed, or no word of any sentence is a gene.
    """
    good = [one for one in found if one.status == "ok"]
    if not good:
        noun = "cell" if per_sample is None else "sample"
        raise InputError(f"none of {count(len(found), noun)} could be written ({_reasons(found)}).")
    rows = [(one, place, text) for one in good for place, text in enumerate(_sentences(one, per_sample))]
    names = [one.name if per_sample is None else f"{one.name}_cell_{place}" for one, place, _ in rows]
    texts = [_first_words(text, num_genes) for _, _, text in rows]
    cells, words = cells_of(names, texts, genes, line)
    if per_sample is not None:
        cells.obs["sample"] = pd.Categorical([one.name for one, _, _ in rows])
    for name, value in said.items():
        cells.obs[name] = pd.Categorical([value] * cells.n_obs)
    cells.obs["finish_reason"] = [one.finish_reason for one, _, _ in rows]
    num_cut = sum(len(text) < len(whole) for text, (_, _, whole) in zip(texts, rows, strict=True))
    words += f", {count(num_cut, 'sentence')} cut to the {num_genes:,} genes that were asked for" if num_cut else ""
    ended = sum(one.finish_reason == "length" for one in good)
    if ended:
        what = count(len(good), "sentence" if per_sample is None else "sample")
        words += f", {ended:,} of {what} ended at the limit of tokens and lost their last word"
    is_written = (cells.obs.pop("status") == "ok").to_numpy()
    return cells if is_written.all() else cells[is_written].copy(), words


def shortfall(found: Sequence[Answer], cells: AnnData, per_sample: int | None) -> str:
    """Say how many cells were asked for and not written, and why; empty when all were."""
    failed = sum(one.status != "ok" for one in found)
    noun = "cell" if per_sample is None else "sample"
    said = [f"{failed:,} of {count(len(found), noun)} could not be written: {_reasons(found)}."] if failed else []
    sizes = [len(_sentences(one, per_sample)) for one in found if one.status == "ok"]
    empty = sum(sizes) - cells.n_obs
    if empty > 0:
        said.append(f"Left out, as no word gives {'it' if empty == 1 else 'them'} expression: {count(empty, 'cell')}.")
    if per_sample is not None and cells.n_obs < per_sample * len(found):
        short = sum(size < per_sample for size in sizes)
        said.append(
            f"{cells.n_obs:,} of {per_sample * len(found):,} cells were written"
            + (f"; in {count(short, 'sample')} the model ended before its {per_sample} cells" if short else "")
            + "."
        )
    return " ".join(said)


def provenance(
    model: TextModel, task: str, sampling: Sampling, max_new_tokens: int, num_failed: int
) -> dict[str, object]:
    """Return what written cells depend on, as ``uns["cellscribe"]`` keeps it."""
    return plain(
        model.settings_of(
            None,
            sampling=sampling.label(),
            task=task,
            max_new_tokens=max_new_tokens,
            num_failed=num_failed,
            values="log10(1 + x)",
        )
    )


def _sentences(one: Answer, per_sample: int | None) -> list[str]:
    """Split an answer into cells."""
    text = one.whole_words
    if per_sample is None:
        return [text]
    return [line.strip() for line in text.splitlines() if line.strip()][:per_sample]


def _first_words(text: str, num_genes: int) -> str:
    return " ".join(text.split(" ")[:num_genes])


def _reasons(found: Sequence[Answer]) -> str:
    said = Counter(one.status.removeprefix("failed: ") for one in found if one.status != "ok")
    return "; ".join(f"{why} ({number:,} times)" if number > 1 else why for why, number in said.most_common(3))
