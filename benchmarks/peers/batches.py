"""Many prompts of different lengths, a batch at a time, as a careful user of an engine runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peers.protocol import Answer, Engine


class BatchEngine(Engine):
    """An engine that generates after a batch of prompts."""

    def do_generate(self, prompts: list[list[int]], new_tokens: int) -> Answer:
        """Write greedily after prompts [B][P] at once."""
        raise NotImplementedError

    def do_complete(self, prompts: list[list[int]], new_tokens: int, batch: int, **more: Any) -> Answer:
        """Write greedily after any number of prompts, `batch` at a time, those of like lengths together."""
        order = by_length(prompts)
        groups = [order[at : at + batch] for at in range(0, len(order), batch)]
        answers = [self.do_generate([prompts[i] for i in group], new_tokens, **more) for group in groups]
        found = {
            "seconds": sum(one["seconds"] for one in answers),
            "prefill_seconds": sum(one["prefill_seconds"] for one in answers),
            "step_seconds": [step for one in answers for step in one["step_seconds"]],
        }
        for name in {"tokens", "margins"} & set(answers[0]):
            rows = [row for one in answers for row in one[name]]
            found[name] = [row for _, row in sorted(zip(order, rows))]  # noqa: B905  (workers may be older Pythons)
        return found


def by_length(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return the order of prompts from the longest down."""
    return sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
