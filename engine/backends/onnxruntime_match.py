"""Bundles that read ranks on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime as ort

from cellscribe.engine.backends.match import CellState, Floats, Ints, TextStates, matching_probability, rank_shape
from cellscribe.engine.backends.sessions import default_threads, open_session
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import ENCODER, KEYS, MATCH, TEXT
from cellscribe.engine.errors import BundleError

_ROWS = 1024  # tokens of texts that are matched in one run: bounds the scores in memory


class OnnxRuntimeMatch:
    """Runs a bundle that reads ranks with ONNX Runtime on the CPU.

    Cells are encoded one at a time, and texts too: nothing is padded, and no sum depends on what else there is.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle, self.shape = bundle, rank_shape(bundle)
        self.threads = threads or default_threads()
        self._matched: tuple[CellState, dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]] | None = None

    @property
    def device(self) -> str:
        """Device, provider and threads in words."""
        plural = "s" if self.threads != 1 else ""
        return f"CPU, ONNX Runtime {ort.__version__} CPUExecutionProvider, {self.threads} thread{plural}"

    def encode_cells(self, cells: Iterable[Ints], *, keeps_states: bool = False) -> Iterator[CellState]:
        """Encode cells one after the other."""
        wanted = ["vector", *(["states"] if keeps_states else [])]
        for tokens in cells:
            found = self._encoder.run(wanted, _alone(tokens))
            yield CellState(found[0][0], found[1][0] if keeps_states else None)

    def encode_texts(self, texts: Sequence[Ints]) -> TextStates:
        """Encode texts one after the other."""
        found = [self._text.run(["vector", "start"], _alone(tokens)) for tokens in texts]
        vectors = np.concatenate([one[0] for one in found]) if found else np.zeros((0, self.shape.d_vector), np.float32)
        return TextStates(vectors, np.array([len(one) for one in texts], np.int64), [one[1][0] for one in found])

    def match(self, cell: CellState, texts: TextStates, chosen: Ints) -> Floats:
        """Match texts of one length together, in runs of bounded size."""
        if cell.states is None:
            raise ValueError("a cell without states cannot be matched")
        found = np.zeros(len(chosen), np.float32)
        lengths = texts.lengths[chosen]
        given = self._keys_values(cell) if len(chosen) else {}
        for length in np.unique(lengths).tolist():
            places = np.flatnonzero(lengths == length)
            size = max(1, _ROWS // length)
            for at in range(0, len(places), size):
                some = places[at : at + size]
                start = np.stack([texts.starts[i] for i in chosen[some].tolist()])[None]
                mask = np.ones(start.shape[:3], bool)
                logits = self._match.run(["logits"], {"start": start, "text_mask": mask, **given})[0]
                found[some] = matching_probability(logits[0])
        return found

    def _keys_values(self, cell: CellState) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        """Keys and values of a cell; those of the last one are kept, as its texts may come in parts."""
        if self._matched is None or self._matched[0] is not cell:
            assert cell.states is not None
            self._matched = None  # frees the other's before there are new ones
            names = [one.name for one in self._keys.get_outputs()]
            found = dict(zip(names, self._keys.run(names, {"states": cell.states[None]}), strict=True))
            found["memory_mask"] = np.ones((1, len(cell.states)), bool)
            self._matched = (cell, found)
        return self._matched[1]

    @cached_property
    def _encoder(self) -> ort.InferenceSession:
        return open_session(self.bundle.path(ENCODER), self.threads)

    @cached_property
    def _text(self) -> ort.InferenceSession:
        return open_session(self._of_texts(TEXT), self.threads)

    @cached_property
    def _keys(self) -> ort.InferenceSession:
        return open_session(self._of_texts(KEYS), self.threads)

    @cached_property
    def _match(self) -> ort.InferenceSession:
        return open_session(self._of_texts(MATCH), self.threads)

    def _of_texts(self, name: str) -> Path:
        if self.shape.text is None:
            raise BundleError(f"the bundle {self.bundle.name} has no texts; use embed, or choose a LangCell bundle.")
        return self.bundle.path(name)


def _alone(tokens: Ints) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return {"tokens": np.ascontiguousarray(tokens, np.int64)[None], "mask": np.ones((1, len(tokens)), bool)}
