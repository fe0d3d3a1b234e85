"""Our LangCell as a worker: labels and vectors of the first cells of a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from peers.langcell_cells import rank_tokens
from peers.protocol import Answer, Engine, serve, versions

from cellscribe.engine.backends.choose import open_backend
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.labels import Labels
from cellscribe.engine.matching.zero_shot import ZeroShot, label_scores
from cellscribe.engine.rank_model import label_texts


class OurLangCell(Engine):
    """One bundle on one backend."""

    def do_open(self, model: str, threads: int = 2, backend: str = "cpu") -> Answer:
        """Open a bundle."""
        self._bundle = open_bundle(Path(model))
        self._backend: Any = open_backend(self._bundle, backend, threads=threads)
        return {
            "versions": versions("cellscribe", "numpy", "onnxruntime"),
            "precision": self._bundle.manifest.precision,
            "threads": threads,
            "notes": self._backend.device,
        }

    def do_label(
        self, cells_file: str, cells: int, labels: list[str], rerank: Literal["all", "sure"] = "all"
    ) -> Answer:
        """Label the first cells of a file."""
        tokens, how = rank_tokens(cells_file, cells), ZeroShot(rerank=rerank)
        started = time.perf_counter()
        encoded = self._bundle.tokenizer.encode_batch(label_texts(Labels(tuple(labels), ("",) * len(labels))))
        texts = self._backend.encode_texts([np.array(one.ids, np.int64) for one in encoded])
        found, sure, matched, match_seconds = [], [], 0, 0.0
        for state in self._backend.encode_cells(tokens, keeps_states=True):
            matching = time.perf_counter()
            one = label_scores(
                state.vector, texts.vectors, lambda chosen, state=state: self._backend.match(state, texts, chosen), how
            )
            match_seconds += time.perf_counter() - matching
            found.append([one.best])
            sure.append(one.score)
            matched += one.num_matched
        total = time.perf_counter() - started
        return {
            "tokens": found, "scores": sure, "seconds": total, "match_seconds": match_seconds,
            "encode_seconds": total - match_seconds, "matched": matched,
        }  # fmt: skip

    def do_embed(self, cells_file: str, cells: int, batch: int = 8, save: str = "") -> Answer:
        """Embed the first cells of a file; `save` keeps the vectors as .npy."""
        tokens = rank_tokens(cells_file, cells)
        started = time.perf_counter()
        vectors = np.stack([one.vector for one in self._backend.encode_cells(tokens)])
        seconds = time.perf_counter() - started
        if save:
            np.save(save, vectors)
        return {"seconds": seconds}


if __name__ == "__main__":
    serve(OurLangCell())
