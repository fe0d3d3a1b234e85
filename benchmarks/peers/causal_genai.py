"""Peer: onnxruntime-genai, the models made by its own builder: fp32, and int8 and int4 in blocks of 32."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from peers.batches import BatchEngine
from peers.protocol import Answer, StepClock, serve, versions


class GenaiCausal(BatchEngine):
    """A model folder of the builder."""

    def do_open(self, model: str, threads: int = 2, precision: str = "fp32") -> Answer:
        """Open the model with as many threads."""
        import onnxruntime_genai as og

        config = og.Config(model)
        session = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        self._og, self._model = og, og.Model(config)
        return {
            "versions": versions("onnxruntime-genai", "onnxruntime"),
            "precision": precision,
            "threads": threads,
            "notes": "batched generator, past and present in one buffer",
        }

    def do_generate(self, prompts: list[list[int]], new_tokens: int) -> Answer:
        """Write greedily, the prompts as one batch."""
        import numpy as np

        total = len(prompts[0]) + new_tokens
        clock = StepClock()
        params = self._og.GeneratorParams(self._model)
        params.set_search_options(
            batch_size=len(prompts), max_length=total, min_length=total, do_sample=False, num_beams=1
        )
        generator = self._og.Generator(self._model, params)
        generator.append_tokens(np.array(prompts, dtype=np.int32))
        for _ in range(new_tokens):
            generator.generate_next_token()
            clock.tick()
        tokens = [generator.get_sequence(i)[-new_tokens:] for i in range(len(prompts))]
        return clock.answer(tokens, new_tokens)


def convert(source: Path, made: Path, precision: str) -> None:
    """Run the builder for the CPU; accuracy level 4 multiplies in int8, the fastest that it has for a CPU."""
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(made)]
    command += ["-p", precision, "-e", "cpu", "-c", str(made / "cache")]
    if precision in ("int4", "int8"):
        command += ["--extra_options", "block_size=32", "accuracy_level=4"]
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)  # the builder's own words stay the last ones


if __name__ == "__main__":
    if len(sys.argv) == 4:
        convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    else:
        serve(GenaiCausal())
