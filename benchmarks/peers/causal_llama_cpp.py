"""Peer: llama.cpp through llama-cpp-python's low level; a sequence per prompt, one decode per step for all of them."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp as lib
import numpy as np
import numpy.typing as npt
from peers.batches import BatchEngine
from peers.protocol import Answer, StepClock, serve, versions

_UBATCH = 512
_F32, _F16 = 0, 1  # ggml's numbers of the types


class LlamaCpp(BatchEngine):
    """A GGUF file. Contexts are made for each shape of request, outside the time that is measured."""

    def do_open(
        self,
        model: str,
        threads: int = 2,
        precision: str = "",
        cache: str = "f16",
        flash: bool = True,
        unified: bool = False,
        mapped: bool = False,
    ) -> Answer:
        """Load the weights, repacked for this processor where llama.cpp has a layout for it."""
        lib.llama_backend_init()
        settings = lib.llama_model_default_params()
        settings.load_mode = lib.LLAMA_LOAD_MODE_MMAP if mapped else lib.LLAMA_LOAD_MODE_NONE
        settings.use_extra_bufts = True
        self._model = lib.llama_model_load_from_file(f"{model}/model.gguf".encode(), settings)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {model}/model.gguf")
        self._vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        self._threads, self._flash, self._unified = threads, flash, unified
        self._cache_type = {"f32": _F32, "f16": _F16}[cache]
        self._context: Any = None
        self._sizes = (0, 0)
        system = " ".join(lib.llama_print_system_info().decode().split())
        return {
            "versions": versions("llama-cpp-python"),
            "precision": precision,
            "threads": threads,
            "notes": f"{system} flash attention {flash}, cache {cache}, unified {unified}",
        }

    def do_generate(self, prompts: list[list[int]], new_tokens: int) -> Answer:
        """Write greedily."""
        count, lengths = len(prompts), np.array([len(one) for one in prompts], np.int32)
        self._reserve(count, int(lengths.max()) + new_tokens)
        batch = _Batch(int(lengths.sum()))
        clock = StepClock()
        # Only the last token of a prompt asks for logits.
        batch.fill(
            tokens=np.concatenate([np.array(one, np.int32) for one in prompts]),
            positions=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
            sequences=np.repeat(np.arange(count, dtype=np.int32), lengths),
            wanted=np.concatenate([np.arange(length) == length - 1 for length in lengths]),
        )
        chosen = [self._decode(batch, count)]
        clock.tick()
        rows = np.arange(count, dtype=np.int32)
        for t in range(new_tokens - 1):
            batch.fill(chosen[-1], lengths + np.int32(t), rows, np.ones(count, bool))
            chosen.append(self._decode(batch, count))
            clock.tick()
        return clock.answer(np.stack(chosen, 1).tolist(), new_tokens)

    def _reserve(self, count: int, length: int) -> None:
        """Open a context that fits, or empty the one that does."""
        if self._sizes[0] == count and self._sizes[1] >= length:
            lib.llama_memory_clear(lib.llama_get_memory(self._context), False)
            return
        if self._context is not None:
            lib.llama_free(self._context)
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = count * -(-length // 32) * 32, count
        settings.n_batch = max(count * length, _UBATCH)
        settings.n_ubatch = _UBATCH
        settings.n_threads = settings.n_threads_batch = self._threads
        settings.type_k = settings.type_v = self._cache_type
        settings.kv_unified, settings.no_perf = self._unified, True
        settings.flash_attn_type = (
            lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if self._flash else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self._context = lib.llama_init_from_model(self._model, settings)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot open a context for {count} sequences of {length} tokens")
        self._sizes = (count, length)

    def _decode(self, batch: _Batch, count: int) -> npt.NDArray[np.int32]:
        """Run a batch and choose from the logits of its `count` outputs, which lie in one block in their order."""
        code = lib.llama_decode(self._context, batch.native)
        if code:
            raise RuntimeError(f"llama_decode failed with code {code}")
        logits = np.ctypeslib.as_array(lib.llama_get_logits(self._context), (count, self._vocab))
        chosen: npt.NDArray[np.int32] = logits.argmax(1).astype(np.int32)
        return chosen


class _Batch:
    """A llama_batch whose arrays NumPy writes; every token belongs to one sequence."""

    def __init__(self, size: int) -> None:
        self._tokens, self._positions = np.zeros(size, np.int32), np.zeros(size, np.int32)
        self._sequences, self._counts = np.zeros(size, np.int32), np.ones(size, np.int32)
        self._wanted = np.zeros(size, np.int8)
        step = self._sequences.itemsize
        first = self._sequences.ctypes.data
        each = ctypes.POINTER(lib.llama_seq_id)
        self._pointers = (each * size)(*(ctypes.cast(ctypes.c_void_p(first + step * i), each) for i in range(size)))
        self.native = lib.llama_batch()
        self.native.token = self._tokens.ctypes.data_as(ctypes.POINTER(lib.llama_token))
        self.native.pos = self._positions.ctypes.data_as(ctypes.POINTER(lib.llama_pos))
        self.native.n_seq_id = self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        self.native.seq_id = ctypes.cast(self._pointers, ctypes.POINTER(each))
        self.native.logits = self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))

    def fill(
        self,
        tokens: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        sequences: npt.NDArray[np.int32],
        wanted: npt.NDArray[np.bool_],
    ) -> None:
        """Put tokens in, with their positions and sequences, and whose logits are wanted."""
        count = len(tokens)
        self._tokens[:count], self._positions[:count] = tokens, positions
        self._sequences[:count], self._wanted[:count] = sequences, wanted
        self.native.n_tokens = count


if __name__ == "__main__":
    serve(LlamaCpp())
