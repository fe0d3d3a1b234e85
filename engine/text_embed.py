"""Vectors of cells from a bundle that reads sentences: the mean of the last states over a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import BackendError, UsageError
from cellscribe.engine.output.run import Run
from cellscribe.engine.sentences.known import gene_report
from cellscribe.engine.sentences.templates import ANNOTATION
from cellscribe.engine.text_model import LESS, NO_GENE, Ints, Progress, TextModel

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
OnPrompts = Callable[[int], None]

MAX_BATCH = 512
_CHUNK = 4096  # cells whose prompts are put in order of their length together


def embed_cells(
    model: TextModel,
    source: CellSource,
    *,
    rows: Rows | None = None,
    upstream_padding: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Embed cells: the mean of the last states over the prompt of cell type prediction.

    Parameters
    ----------
    rows
        int64 [N], which cells; None for all of them.
    upstream_padding
        Average over padding, too, as Cell2Sentence 1.2.0 does when it embeds batches of so many cells: a vector then
        depends on the cells beside it and on the size of the batch, cells in the order of `rows`. See
        :meth:`cellscribe.engine.backends.onnxruntime_text.OnnxRuntimeText.embed_padded` for what is assumed. None
        averages over the prompt's own tokens: the same bits in any company.

    Returns
    -------
    A run with ``embeddings`` float32 [N, d], as the model gives them, not scaled to length 1; a row of NaN for a cell
    that expresses nothing, or whose prompt goes beyond the context.

    Raises
    ------
    UsageError
        For batches of no cells.
    InputError
        When none of many genes has a name that is known (:func:`cellscribe.engine.sentences.known.gene_report`).
    BackendError
        When the device fails before any cell is embedded, or the backend that was asked for cannot pad.
    """
    if upstream_padding is not None and not 1 <= upstream_padding <= MAX_BATCH:
        raise UsageError(
            f"--upstream-padding (upstream_padding) is {upstream_padding}; choose a batch of 1 to {MAX_BATCH} cells."
        )
    genes = gene_report(source, model.settings.organism)
    rows = np.arange(source.n_cells) if rows is None else np.asarray(rows, np.int64)
    found = np.full((len(rows), model.width), np.nan, np.float32)
    lost: dict[int, str] = {}
    for start in range(0, len(rows), _CHUNK):
        names, sentences = model.sentences(source, rows[start : start + _CHUNK])
        lost |= {start + i: NO_GENE for i, one in enumerate(sentences) if not one}
        kept = [i for i, one in enumerate(sentences) if one]
        prompts = [model.prompt_of(ANNOTATION, names[i]) for i in kept]
        tokens = model.encode([model.prompts.of_cell(one, sentences[i]) for i, one in zip(kept, prompts, strict=True)])
        fits = [len(one) <= model.context for one in tokens]
        for i, one, is_good in zip(kept, tokens, fits, strict=True):
            if not is_good:
                lost[start + i] = f"its prompt of {len(one)} tokens exceeds the context of {model.context}; {LESS}"
        kept = [i for i, is_good in zip(kept, fits, strict=True) if is_good]
        tokens = [one for one, is_good in zip(tokens, fits, strict=True) if is_good]
        before = start + len(names) - len(kept)
        report = None if progress is None else _reporter(progress, before, len(rows))
        try:
            found[[start + i for i in kept]] = _vectors(model, tokens, upstream_padding, report)
        except BackendError as error:
            if not start:
                raise
            lost |= {i: str(error).removesuffix(".") for i in range(start, len(rows)) if i not in lost}
            break
        if progress:
            progress(start + len(names), len(rows), 0)
    for i in np.flatnonzero(~np.isfinite(found).all(1)).tolist():
        lost.setdefault(i, "its embedding is not finite")
        found[i] = np.nan
    over = "the prompt's tokens" if upstream_padding is None else f"prompts in batches of {upstream_padding}, padded"
    return Run(
        rows,
        embeddings=found,
        why_lost=lost,
        gene_report=genes,
        settings=model.settings_of(source, sampling="none", pooling=f"mean of the last states over {over}"),
        cell_ids=tuple(str(source.obs_names[row]) for row in rows),
    )


def _reporter(progress: Progress, before: int, total: int) -> OnPrompts:
    return lambda done: progress(before + done, total, 0)


def _vectors(
    model: TextModel, tokens: Sequence[Ints], upstream_padding: int | None, report: OnPrompts | None
) -> Floats:
    if upstream_padding is None:
        return model.embed_prompts(tokens, report)
    done = 0
    found = [np.zeros((0, model.width), np.float32)]
    for start in range(0, len(tokens), upstream_padding):
        found.append(model.embed_padded(tokens[start : start + upstream_padding]))
        done += len(found[-1])
        if report:
            report(done)
    return np.concatenate(found)
