"""Peer: optimum's ORTModelForCausalLM, ONNX Runtime under transformers' generate; exported by optimum itself."""

from __future__ import annotations

import sys
from pathlib import Path

from peers.batches import BatchEngine
from peers.protocol import Answer, StepClock, serve, versions


class OptimumCausal(BatchEngine):
    """A decoder exported to ONNX with caches that grow."""

    def do_open(self, model: str, threads: int = 2, io_binding: bool = True) -> Answer:
        """Open the session."""
        import onnxruntime
        import torch
        import transformers
        from optimum.onnxruntime import ORTModelForCausalLM

        torch.set_num_threads(threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._torch, self._library = torch, transformers
        self._model = ORTModelForCausalLM.from_pretrained(
            model, use_cache=True, use_io_binding=io_binding, session_options=options, provider="CPUExecutionProvider"
        )
        return {
            "versions": versions("onnxruntime", "optimum", "optimum-onnx", "transformers", "torch"),
            "precision": "fp32",
            "threads": threads,
            "notes": f"generate, {'bound' if io_binding else 'unbound'} inputs and outputs",
        }

    def do_generate(self, prompts: list[list[int]], new_tokens: int) -> Answer:
        """Write greedily."""
        from peers.causal_torch import generate, padded

        with self._torch.inference_mode():
            clock = StepClock()
            ids, mask = padded(prompts)
            tokens = generate(self._model, self._library, ids, mask, new_tokens, clock)
            return clock.answer(tokens.tolist(), new_tokens)


def convert(source: Path, made: Path) -> None:
    """Export a Hugging Face folder with optimum's exporter, in fp32."""
    from optimum.exporters.onnx import main_export

    main_export(str(source), made, task="text-generation-with-past", dtype="fp32", device="cpu", do_validation=False)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        serve(OptimumCausal())
