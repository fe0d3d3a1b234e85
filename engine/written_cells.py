"""What becomes of sentences that a model wrote as cells: those that failed left out, cut words too, and how it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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


def cells_of_answers(found: Sequence[Answer], genes: SentenceGenes, line: Inverse) -> tuple[AnnData, str]:
    """Return a cell for every answer that did not fail, and what was found in the sentences, in words.

    A sentence that ended at the limit of its tokens loses its last word, which may be cut: CD7 of CD74 is a gene.

    Raises
    ------
    InputError
        When all failed, or no word of any sentence is a gene.
    """
    good = [one for one in found if one.status == "ok"]
    if not good:
        raise InputError(
            f"none of {count(len(found), 'cell')} could be written ({_reasons(found)}); ask in fewer words, or for "
            "fewer tokens."
        )
    cells, said = cells_of([one.name for one in good], [whole_words(one) for one in good], genes, line)
    cells.obs["finish_reason"] = [one.finish_reason for one in good]
    cut = sum(one.finish_reason == "length" for one in good)
    if cut:
        said += f", {cut:,} of {count(len(good), 'sentence')} ended at the limit of tokens and lost their last word"
    return cells, said


def failure_sentence(found: Sequence[Answer]) -> str:
    """Say how many cells could not be written, and why; empty when all could."""
    failed = sum(one.status != "ok" for one in found)
    return f"{failed:,} of {count(len(found), 'cell')} could not be written: {_reasons(found)}." if failed else ""


def whole_words(one: Answer) -> str:
    """Return the text of an answer, without its last word where the limit of tokens may have cut it."""
    return one.text if one.finish_reason != "length" else one.text.rpartition(" ")[0]


def provenance(
    model: TextModel, task: str, cell_type: str | None, sampling: Sampling, max_new_tokens: int, num_failed: int
) -> dict[str, object]:
    """Return what written cells depend on, as ``uns["cellscribe"]`` keeps it."""
    return plain(
        model.settings_of(
            None,
            sampling=sampling.label(),
            task=task,
            cell_type=cell_type,
            max_new_tokens=max_new_tokens,
            num_failed=num_failed,
            values="log10(1 + x)",
        )
    )


def _reasons(found: Sequence[Answer]) -> str:
    said = Counter(one.status.removeprefix("failed: ") for one in found if one.status != "ok")
    return "; ".join(f"{why} ({number:,} times)" if number > 1 else why for why, number in said.most_common(3))
