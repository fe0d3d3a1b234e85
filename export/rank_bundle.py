"""A model that reads ranks of genes -> bundle: trace, keep a reference, check parity, then move into place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cellscribe.engine.backends.onnxruntime_match import OnnxRuntimeMatch
from cellscribe.engine.bundle import load as names
from cellscribe.engine.bundle.load import open_bundle
from cellscribe.engine.bundle.manifest import Manifest, Precision
from cellscribe.engine.bundle.shapes import BertShape, RankShape
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import InputError
from cellscribe.engine.output.folder import staging
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.ranks import RankTokenizer
from cellscribe.engine.verify_match import measure_match_parity, require_match_parity
from cellscribe.export.checkpoint.langcell import RankParts, TextParts
from cellscribe.export.models.bert import Bert
from cellscribe.export.models.langcell import CellGraph, KeysGraph, MatchGraph, TextGraph
from cellscribe.export.sealing import seal
from cellscribe.export.sharing import share_weights
from cellscribe.export.trace_ranks import trace_cell, trace_keys, trace_match, trace_text

Progress = Callable[[str], None]
Tokens = list[npt.NDArray[np.int64]]

MATCHING, EMBEDDING = ("annotate", "search", "embed"), ("embed",)
_CELLS, _LONGEST = 4, 256  # of the reference: cells, and tokens of a cell
# Texts of the reference, of different length.
_TEXTS = (
    "B cell",
    "natural killer cell: a lymphocyte that kills infected cells without having met them before.",
    "classical monocyte",
    "dendritic cell, which presents antigens to T cells.",
)


@dataclass(frozen=True)
class _Graphs:
    """The modules that are traced."""

    cell: CellGraph
    text: TextGraph | None = None
    keys: KeysGraph | None = None
    match: MatchGraph | None = None


def export_ranks(
    parts: RankParts,
    bundle: Path,
    precision: Precision,
    name: str,
    cells: Path | None,
    tools: dict[str, str],
    say: Progress,
) -> Manifest:
    """Write a bundle in fp32 or fp16; see :func:`cellscribe.export.bundle.export_checkpoint`."""
    dtype = torch.float16 if precision == "fp16" else torch.float32
    with staging(bundle) as folder, torch.no_grad():
        parts.vocabulary.save(folder / names.GENES)
        if parts.texts is not None:
            (folder / names.TOKENIZER).write_text(parts.texts.tokenizer.to_str(), encoding="utf-8")
        _trace_all(_graphs(parts, dtype), folder, dtype, say)
        say("running the torch model on the reference cells")
        tokens, source = reference_tokens(parts, cells)
        save_file(
            match_reference(_graphs(parts, torch.float32), tokens, reference_texts(parts)), folder / names.REFERENCE
        )
        manifest = seal(_manifest(parts, precision, name), folder, tools)
        say("checking parity with torch")
        opened = open_bundle(folder)
        parity = measure_match_parity(opened, OnnxRuntimeMatch(opened), source)
        require_match_parity(parity, name)
        return seal(replace(manifest, match_parity=parity), folder, tools)


def reference_tokens(parts: RankParts, cells: Path | None) -> tuple[Tokens, str]:
    """Return the tokens of a few real cells, of different lengths, and where they come from.

    Should the vocabulary not know the packaged cells' genes, its first genes take their place.

    Raises
    ------
    InputError
        When `cells` was given and cannot be used.
    """
    path, most = cells or packaged_cells(), min(_LONGEST, parts.input.max_tokens)
    found: Tokens = []
    try:
        with open_cells(path) as source:
            for batch in RankTokenizer(parts.input, parts.vocabulary, source).batches(
                np.arange(min(64, source.n_cells))
            ):
                found += [batch.cell(i)[: most - 9 * i] for i in range(min(_CELLS, len(batch.rows)))]
    except InputError:
        if cells is not None:
            raise
    if found:
        return found, f"real cells of {path.name}"
    if cells is not None:
        raise InputError(f"none of the first cells of {path} can be tokenised; give other cells to check parity on.")
    first = len(parts.vocabulary.tokens) - most
    drawn = [np.arange(first, first + most - 9 * i, dtype=np.int64) for i in range(_CELLS)]
    return drawn, "drawn tokens, as the vocabulary does not know the packaged cells' genes"


def reference_texts(parts: RankParts) -> Tokens:
    """Return the tokens of the reference's texts; none where a bundle has no texts."""
    if parts.texts is None:
        return []
    return [np.array(one.ids, np.int64) for one in parts.texts.tokenizer.encode_batch(list(_TEXTS))]


def match_reference(graphs: _Graphs, cells: Tokens, texts: Tokens) -> dict[str, Tensor]:
    """Return the torch model's answers, one cell and one text at a time.

    Returns
    -------
    ``cell`` int64 [N, S], zero after ``cell_length`` int64 [N]; ``states`` float32 [N, S, m], likewise, and ``vector``
    float32 [N, p]; with texts also ``text`` int64 [R, T], ``text_length`` int64 [R], ``text_vector`` float32 [R, p] and
    the probability ``match`` float32 [N, R].
    """
    states, vectors = zip(*(graphs.cell(*_alone(one)) for one in cells), strict=True)
    width = max(map(len, cells))
    found = {
        **_padded("cell", cells),
        "states": torch.cat([nn.functional.pad(one, (0, 0, 0, width - one.shape[1])) for one in states]),
        "vector": torch.cat(vectors),
    }
    if graphs.text is None or graphs.keys is None or graphs.match is None:
        return found
    text_vectors, starts = zip(*(graphs.text(*_alone(one)) for one in texts), strict=True)
    match = torch.zeros(len(cells), len(texts))
    for i, one in enumerate(states):
        keys_values, memory_mask = list(graphs.keys(one)), torch.ones(1, one.shape[1], dtype=torch.bool)
        for j, start in enumerate(starts):
            text_mask = torch.ones(1, 1, start.shape[1], dtype=torch.bool)
            match[i, j] = graphs.match(start[None], text_mask, memory_mask, keys_values).softmax(-1)[0, 0, 1]
    return {**found, **_padded("text", texts), "text_vector": torch.cat(text_vectors), "match": match}


def _alone(tokens: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Tokens and mask [1, S] of one sequence."""
    ids = torch.from_numpy(tokens.copy())[None]
    return ids, torch.ones_like(ids, dtype=torch.bool)


def _padded(name: str, rows: Sequence[npt.NDArray[np.int64]]) -> dict[str, Tensor]:
    width = max(map(len, rows))
    whole = np.stack([np.pad(row, (0, width - len(row))) for row in rows])
    return {name: torch.from_numpy(whole), f"{name}_length": torch.tensor([len(row) for row in rows])}


def _graphs(parts: RankParts, dtype: torch.dtype) -> _Graphs:
    """Return the modules; in half precision of rounded copies, so that the reference keeps the original weights."""
    cell, projection, texts = parts.cell, parts.projection, parts.texts
    if dtype == torch.float16:
        cell, projection, texts = copy.deepcopy(cell).half(), copy.deepcopy(projection), copy.deepcopy(texts)
        if projection is not None:
            projection.half()
        if texts is not None:
            for one in (texts.bert, texts.projection, texts.head):
                one.half()
    graph = CellGraph(cell, projection, parts.input.pooling)
    return _Graphs(graph) if texts is None else _Graphs(graph, *_text_graphs(texts))


def _text_graphs(texts: TextParts) -> tuple[TextGraph, KeysGraph, MatchGraph]:
    return TextGraph(texts.bert, texts.projection), KeysGraph(texts.bert), MatchGraph(texts.bert, texts.head)


def _trace_all(graphs: _Graphs, folder: Path, dtype: torch.dtype, say: Progress) -> None:
    say("tracing the cell encoder")
    trace_cell(graphs.cell, folder / names.ENCODER)
    if graphs.text is None or graphs.keys is None or graphs.match is None:
        return
    config = graphs.text.text.config
    say("tracing the text encoder")
    trace_text(graphs.text, folder / names.TEXT)
    say("tracing the matching")
    trace_keys(graphs.keys, folder / names.KEYS, config.d_memory, config.n_layers, dtype)
    trace_match(graphs.match, folder / names.MATCH, dtype)
    share_weights(folder, names.TEXT, names.MATCH)


def _manifest(parts: RankParts, precision: Precision, name: str) -> Manifest:
    texts = parts.texts
    d_vector = parts.cell.config.d_model if parts.projection is None else parts.projection.weight.shape[1]
    return Manifest(
        name,
        parts.family,
        EMBEDDING if texts is None else MATCHING,
        precision,
        None,
        None,
        notes=parts.notes,
        ranks=parts.input,
        rank_shape=RankShape(_shape(parts.cell), d_vector, None if texts is None else _shape(texts.bert)),
    )


def _shape(bert: Bert) -> BertShape:
    c = bert.config
    return BertShape(c.vocab_size, c.d_model, c.n_layers, c.n_heads, c.d_ffn, c.max_positions, c.activation, c.norm_eps)
