"""The native CPU backend."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cellscribe.engine.backends.base import Encoded, SlotPlan
from cellscribe.engine.backends.contract import check_length
from cellscribe.engine.backends.cpu.contract import check_decoder, check_encoder
from cellscribe.engine.backends.cpu.loading import NativeDecoder, load_decoder
from cellscribe.engine.backends.cpu.slots import CpuSlots
from cellscribe.engine.backends.sessions import default_threads
from cellscribe.engine.bundle.load import PREFIX, Bundle
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import BackendError, BundleError, RoomError
from cellscribe.engine.machine import available_memory
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, instruction_sets, load_cpu_library, packed_bytes

if TYPE_CHECKING:
    from cellscribe.engine.backends.cpu.encoder import CpuEncoder

_WORDS = {"avx2": "AVX2", "avx512": "AVX-512 VNNI", "avx512bf16": "AVX-512 VNNI and BF16"}
_X86_64 = ("x86_64", "amd64")


def cpu_problem() -> str:
    """Say why the native library does not run here; empty when it does."""
    if load_cpu_library() is None:
        if platform.machine().lower() not in _X86_64:
            return f"it is written for x86-64 and this CPU is {platform.machine() or 'unknown'}."
        return "its library is not there; install cellscribe where a C++ compiler is found."
    if not instruction_sets():
        return "this CPU lacks AVX2."
    return ""


def open_library(threads: int, instruction_set: str | None) -> CpuLibrary:
    """Open the native library; BackendError where it cannot run."""
    problem = cpu_problem()
    if problem:
        raise BackendError(f"the native CPU backend cannot run here: {problem}")
    try:
        return CpuLibrary(threads, instruction_set)
    except RuntimeError as error:
        raise BackendError(f"the native CPU backend cannot run here: {error}.") from error


def native_words(library: CpuLibrary, threads: int) -> str:
    """Say device, instructions and threads."""
    plural = "s" if threads != 1 else ""
    return f"CPU, native, {_WORDS[library.instruction_set]}, {threads} thread{plural}"


class CpuBackend:
    """Runs a bundle with our own library on the CPU.

    Weights stay as the bundle stores them: float32, fp16 (multiplied in float32), or 8 and 4 bits in blocks,
    which are multiplied with activations rounded to 8 bits. Texts do not depend on the number of slots or threads.

    Parameters
    ----------
    bundle
        What is to run.
    threads
        None takes all that the process may use.
    instruction_set
        "avx512bf16", "avx512" or "avx2"; None takes the best one.

    Raises
    ------
    BackendError
        When the library cannot run here.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, instruction_set: str | None = None) -> None:
        self.bundle = bundle
        self.threads = threads or default_threads()
        self.library = open_library(self.threads, instruction_set)

    @property
    def device(self) -> str:
        """Device, instructions and threads in words."""
        return native_words(self.library, self.threads)

    @property
    def cells_ahead(self) -> int:
        """None: the cores that would encode are those that decode."""
        return 0

    @cached_property
    def encoder(self) -> CpuEncoder:
        """The encoder, packed when cells are first encoded."""
        from cellscribe.engine.backends.cpu.encoder import CpuEncoder

        check_encoder(self.bundle)
        with in_memory("the weights of the encoder"):
            return CpuEncoder(self.bundle, self.library)

    @cached_property
    def decoder(self) -> NativeDecoder:
        """The decoder, packed when text is first asked for."""
        if self.bundle.describes:
            check_decoder(self.bundle)
        with in_memory("the weights of the decoder"):
            return load_decoder(self.bundle, self.library)

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells."""
        encoder = self.encoder
        with in_memory("a batch of cells"):
            return encoder.encode(batch)

    def open_slots(self, plan: SlotPlan) -> CpuSlots:
        """Take room for the slots of a run."""
        manifest = self.bundle.manifest
        if manifest.decoder is None or manifest.prompt is None:
            raise BundleError(f"the bundle {self.bundle.name} cannot describe cells; choose one with a decoder.")
        check_length(self.bundle, plan.max_new_tokens)
        prompt = np.array(manifest.prompt.token_ids, np.int64)
        shape, cross = manifest.decoder, manifest.cross_attention
        decoder = self.decoder  # checks the manifest's sizes, which the room is computed from
        each = slot_bytes(shape, len(prompt) + plan.max_new_tokens, decoder.cache_kind)
        if cross is not None:
            each += attended_bytes(cross, shape, decoder.memory_kind, plan.num_genes)
        check_free(plan.num_slots, each, 1)
        with in_memory(f"{plan.num_slots} slots"):
            return CpuSlots(self.library, decoder, shape, cross, plan, prompt, self.bundle.tensors(PREFIX))


def slot_bytes(shape: DecoderShape, capacity: int, kind: Kind = Kind.FLOAT) -> int:
    """Return the bytes of one slot's keys and values for `capacity` tokens, padded as the library keeps them."""
    heads, width = shape.n_layers * shape.n_kv_heads, -(-shape.d_head // 16) * 16
    if kind == Kind.INT8:  # as cpu/byte_caches.h has them
        capacity = -(-capacity // 64) * 64
        return heads * (packed_bytes(kind, shape.d_head, capacity) + width // 16 * (16 * capacity + 64) + 4 * capacity)
    return 8 * heads * width * -(-capacity // 16) * 16


def attended_bytes(cross: CrossShape, shape: DecoderShape, kind: Kind, num_genes: int) -> int:
    """Return the bytes of what one slot attends to, a cell of `num_genes`, packed as the library keeps it."""
    heads = 1 if cross.form == "latent" else (shape.n_layers - shape.n_lower) * cross.n_kv_heads
    width = cross.d_memory if cross.form == "latent" else cross.d_head
    even = num_genes + num_genes % 2
    return heads * (packed_bytes(kind, width, num_genes) + packed_bytes(kind, even, width))


def check_free(num_slots: int, each: int, more: int = 0) -> None:
    """Raise RoomError where the memory that is free does not hold so many slots (and `more`) of a size in bytes.

    The system would give it, and end the process when it is used.
    """
    free = available_memory()
    if free is None or (num_slots + more) * each <= free:
        return
    fitting = max(0, free // each - more)
    raise RoomError(
        f"{num_slots} slots need {(num_slots + more) * each / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
        "choose a smaller --batch-size (batch_size).",
        num_fitting=int(fitting),
    )


@contextmanager
def in_memory(what: str) -> Iterator[None]:
    """Turn a lack of memory into one sentence."""
    try:
        yield
    except MemoryError as error:
        raise RoomError(
            f"the CPU has too little free memory for {what}; free some, or choose a smaller bundle."
        ) from error
