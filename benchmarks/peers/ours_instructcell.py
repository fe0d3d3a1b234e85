"""Our InstructCell as a worker: answers about cells, and cells that are written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from peers.protocol import Answer, Engine, serve, versions

from cellscribe.engine.backends.choose import open_backend
from cellscribe.engine.backends.instruct import EncoderPrompt, InstructBackend, instruct_shapes
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.bundle.load import DISPERSION
from cellscribe.engine.cells import open_cells
from cellscribe.engine.instruct.cells import InstructCells
from cellscribe.engine.instruct.sampling import draw_counts, draw_latents
from cellscribe.engine.instruct.writer import Asked, write_answers
from cellscribe.engine.text_writer import TextOptions
from cellscribe.engine.types import Sampling

_PROFILES = 64


class OurInstructCell(Engine):
    """One bundle on one backend."""

    def do_open(self, model: str, threads: int = 2, backend: str = "cpu") -> Answer:
        """Open a bundle."""
        self._bundle = open_bundle(Path(model))
        self._backend: Any = open_backend(self._bundle, backend, threads=threads)
        self._shapes = instruct_shapes(self._bundle)
        return {
            "versions": versions("cellscribe", "numpy", "onnxruntime"),
            "precision": self._bundle.manifest.precision,
            "threads": threads,
            "notes": self._backend.device,
        }

    def do_annotate(
        self, prompts: list[list[int]], cells_file: str, cells: int, new_tokens: int, batch: int = 32
    ) -> Answer:
        """Answer a prompt for each of the first cells of a file, or one prompt for all, from counts to tokens."""
        asked = [_prompt(one, self._shapes.spec.placeholder_id, self._shapes.tower.n_queries) for one in prompts]
        asked = asked * cells if len(asked) == 1 else asked
        with open_cells(Path(cells_file)) as source:
            read = InstructCells(source, self._bundle.vocabulary.input_genes or ())
            batches = list(read.batches(np.arange(cells)))
        started = time.perf_counter()
        timed = _Timed(self._backend)
        features = (one for batch in batches for one in self._backend.read_cells(batch.cells))
        pairs = zip(range(cells), asked, features, strict=True)
        given = (Asked(i, i, replace(prompt, features=mine)) for i, prompt, mine in pairs)
        options = TextOptions(Sampling(), new_tokens, min(batch, cells), frozenset())
        longest = max(len(one.tokens) for one in asked)
        texts = {t.request.index: t for t in write_answers(timed, self._shapes.spec, given, longest, options)}
        seconds = time.perf_counter() - started
        tokens = [[int(one) for one in texts[i].token_ids] for i in range(cells)]
        return {"tokens": tokens, "seconds": seconds, "prefill_seconds": timed.seconds}

    def do_generate(
        self, prompt: list[int], n: int, new_tokens: int, batch: int = 32, each: bool = False, seed: int = 0
    ) -> Answer:
        """Write n cells after one prompt without a cell; with `each` the text of every one is written anew."""
        started, times = time.perf_counter(), 1 if not each else n
        conditions = np.concatenate(list(self._conditions(prompt, times, new_tokens, batch)))
        conditions = np.broadcast_to(conditions, (n, conditions.shape[1]))
        written = time.perf_counter()
        shape, expressed = self._shapes.profile, 0
        theta = self._bundle.tensors(DISPERSION)["theta"].astype(np.float32)
        for at in range(0, n, _PROFILES):
            names = [f"generated_{i}" for i in range(at, min(n, at + _PROFILES))]
            latents, libraries = draw_latents(names, shape, seed)
            found = self._backend.write_profiles(conditions[at : at + len(names)], latents, libraries)
            expressed += draw_counts(names, found, theta, seed).nnz
        seconds = time.perf_counter() - started
        return {"n": n, "seconds": seconds, "text_seconds": written - started, "expressed": expressed / n}

    def _conditions(self, prompt: list[int], times: int, new_tokens: int, batch: int) -> Iterator[np.ndarray]:
        """Write the text of a prompt as often, and give the states at the signal after it."""
        spec = self._shapes.spec
        one = EncoderPrompt(np.array(prompt, np.int64))
        start = np.array([spec.start_id], np.int64)
        for at in range(0, times, batch):
            count = min(batch, times - at)
            memories = self._backend.encode_prompts([one] * count)
            plan = TextPlan(count, 1, new_tokens + 1, Sampling(), longest_memory=len(prompt))
            slots = self._backend.open_instruct_slots(plan)
            slots.admit([Prompted(i, i, start, memory=mine) for i, mine in enumerate(memories)]).wait()
            for _ in range(new_tokens - 1):
                slots.step(np.arange(count)).wait()
            slots.force(np.full(count, spec.signal_id))
            yield slots.states(list(range(count)))


class _Timed:
    """A backend that notes how long prompts take."""

    def __init__(self, backend: InstructBackend) -> None:
        self._backend, self.seconds = backend, 0.0
        self.open_instruct_slots = backend.open_instruct_slots

    def encode_prompts(self, prompts: list[EncoderPrompt]) -> list[Any]:
        """Encode prompts."""
        started = time.perf_counter()
        found = self._backend.encode_prompts(prompts)
        self.seconds += time.perf_counter() - started
        return found


def _prompt(tokens: list[int], placeholder: int, queries: int) -> EncoderPrompt:
    at = tokens.index(placeholder)
    return EncoderPrompt(np.insert(np.array(tokens, np.int64), at, np.full(queries - 1, placeholder)), at)


if __name__ == "__main__":
    serve(OurInstructCell())
