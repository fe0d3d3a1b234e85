"""Peer: CTranslate2, converted by its own converter; float32, or int8 weights with int8 arithmetic."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from peers.batches import BatchEngine
from peers.protocol import Answer, StepClock, serve, versions


class CTranslate2Causal(BatchEngine):
    """A converted model; prompts go through as one batch."""

    def do_open(self, model: str, threads: int = 2, precision: str = "float32", workers: int = 1) -> Answer:
        """Open the model with `threads` shared out among `workers`, each of which takes its part of a batch."""
        import ctranslate2

        self._generator = ctranslate2.Generator(
            model, device="cpu", compute_type=precision, inter_threads=workers, intra_threads=threads // workers
        )
        self._workers = workers
        self._words: list[str] = json.loads((Path(model) / "vocabulary.json").read_text())
        self._ids = {word: i for i, word in enumerate(self._words)}
        return {
            "versions": versions("ctranslate2"),
            "precision": self._generator.compute_type,
            "threads": threads,
            "notes": "generate_batch, prompts forwarded at once, end token suppressed",
        }

    def do_generate(self, prompts: list[list[int]], new_tokens: int) -> Answer:
        """Write greedily."""
        words = [[self._words[i] for i in row] for row in prompts]
        seen, written = [0] * new_tokens, [0] * len(prompts)
        clock = StepClock()

        def count(step: Any) -> bool:
            # Workers call it from their threads, one at a time. Texts after shorter prompts are ahead of the others.
            at = written[step.batch_id]
            written[step.batch_id] += 1
            seen[at] += 1
            if seen[at] == len(prompts):
                clock.tick()
            return False

        results = self._generator.generate_batch(
            words,
            max_batch_size=-(-len(prompts) // self._workers),
            beam_size=1,
            sampling_topk=1,
            min_length=new_tokens,
            max_length=new_tokens,
            include_prompt_in_result=False,
            callback=count,
        )
        tokens = [[self._ids[word] for word in one.sequences[0]] for one in results]
        return clock.answer(tokens, new_tokens)


def convert(source: Path, made: Path, precision: str) -> None:
    """Convert a Hugging Face folder."""
    from ctranslate2.converters import TransformersConverter
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    # Transformers 5 keeps the share of rotated numbers and the head elsewhere than this converter looks for them.
    GPTNeoXForCausalLM.embed_out = property(lambda model: model.lm_head)
    GPTNeoXConfig.rotary_pct = property(lambda config: config.rope_parameters["partial_rotary_factor"])
    made.rmdir()
    TransformersConverter(str(source), low_cpu_mem_usage=True).convert(str(made), quantization=precision)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    else:
        serve(CTranslate2Causal())
