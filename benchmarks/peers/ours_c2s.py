"""Ours on prompts of Cell2Sentence: a bundle of the same folder, texts written as `cellscribe annotate` writes them.

The tokens that all prompts begin with are computed once; other engines compute them for every prompt. Texts have no
end, so that every engine writes as many tokens.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from peers.protocol import Answer, Engine, serve, versions

from cellscribe.engine.backends.base import Floats, Ints, Slots, Ticket
from cellscribe.engine.backends.choose import choose_text_backend
from cellscribe.engine.backends.prompt_rows import OnPrompts
from cellscribe.engine.backends.text import Prompted, TextBackend, TextPlan
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.text_writer import TextOptions, write_texts
from cellscribe.engine.types import Sampling


@dataclass
class Times:
    """How long prompts took in all, the shared prefix included, and each step."""

    prefill_seconds: float = 0.0
    step_seconds: list[float] = field(default_factory=list)


class TimedSlots:
    """Slots that note how long prompts and steps take."""

    depth = 1  # the CPU's slots: work is done when it is given
    steps_per_ticket = 1

    def __init__(self, slots: Slots, times: Times) -> None:
        if slots.depth != 1 or slots.steps_per_ticket != 1:
            raise ValueError("these slots work ahead, so that a call's time is not that of its work")
        self._slots, self._times = slots, times

    def admit(self, admissions: Sequence[Prompted]) -> Ticket:
        """Fill slots and run their prompts."""
        started = time.perf_counter()
        found = self._slots.admit(admissions)
        self._times.prefill_seconds += time.perf_counter() - started
        return found

    def logits(self, count: int) -> Floats:
        """Logits of the last choices."""
        return self._slots.logits(count)

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last ones."""
        self._slots.force(tokens)

    def step(self, active: Ints) -> Ticket:
        """Run one step of all slots."""
        started = time.perf_counter()
        found = self._slots.step(active)
        self._times.step_seconds.append(time.perf_counter() - started)
        return found


class TimedBackend:
    """A backend that notes the times of all slots it opens; opening them, which runs the shared prefix, is prefill."""

    def __init__(self, backend: TextBackend) -> None:
        self._backend = backend
        self.times = Times()

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return self._backend.device

    def embed_prompts(self, prompts: Sequence[Ints], progress: OnPrompts | None = None) -> Floats:
        """Return the vectors of prompts."""
        return self._backend.embed_prompts(prompts, progress)

    def open_text_slots(self, plan: TextPlan) -> TimedSlots:
        """Open slots."""
        started = time.perf_counter()
        slots = TimedSlots(self._backend.open_text_slots(plan), self.times)
        self.times.prefill_seconds += time.perf_counter() - started
        return slots


class OurC2s(Engine):
    """The way of :class:`cellscribe.engine.text_model.TextModel` from token ids to token ids."""

    def do_open(self, model: str, threads: int = 2, backend: str = "cpu") -> Answer:
        """Open the bundle and pack its weights."""
        bundle = open_bundle(Path(model))
        self._backend = TimedBackend(choose_text_backend(bundle, backend, threads))
        self._write([[1, 2], [1, 3]], 2, 2)  # packs the weights
        return {
            "versions": versions("cellscribe", "numpy"),
            "precision": bundle.manifest.precision,
            "threads": threads,
            "notes": f"{self._backend.device}, shared prefix computed once",
        }

    def do_complete(self, prompts: list[list[int]], new_tokens: int, batch: int) -> Answer:
        """Write greedily with `batch` slots, longest prompts first."""
        times = self._backend.times = Times()
        started = time.perf_counter()
        tokens = self._write(prompts, new_tokens, batch)
        seconds = time.perf_counter() - started
        return {
            "tokens": tokens,
            "seconds": seconds,
            "prefill_seconds": times.prefill_seconds,
            "step_seconds": times.step_seconds,
        }

    def _write(self, prompts: list[list[int]], new_tokens: int, batch: int) -> list[list[int]]:
        options = TextOptions(Sampling(), new_tokens, batch, frozenset())
        found: dict[int, list[int]] = {}
        for text in write_texts(
            self._backend, [np.array(one, np.int64) for one in prompts], range(len(prompts)), options
        ):
            if text.finish_reason != "length":
                raise RuntimeError(f"text {text.request.index} ended for another reason: {text.finish_reason}")
            found[text.request.index] = [int(token) for token in text.token_ids]
        return [found[i] for i in range(len(prompts))]


def convert(source: Path, made: Path, precision: str) -> None:
    """Export a Hugging Face folder as ``cellscribe export`` does."""
    from cellscribe.export.bundle import export_checkpoint

    made.rmdir()
    export_checkpoint(source, made, family="c2s", precision=precision)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    else:
        serve(OurC2s())
