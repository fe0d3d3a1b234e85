"""What the parts of a run share: the device, the library of kernels, the bundle, its cells, the measured ceilings."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gpu.clock import Clock
from gpu.results import Section, Store
from gpu.roofline import Ceilings, Model, model_of
from gpu.sizes import FULL, TINY, Sizes


@dataclass(frozen=True)
class Options:
    """Where a run works and writes; `seconds` is the limit of one process."""

    work: Path
    target: Path
    emulate: bool = False
    library: Path | None = None
    bundle: Path | None = None
    seconds: float = 600.0


class Context:
    """Opened once in a process; everything heavy is made when it is first asked for."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.sizes: Sizes = TINY if options.emulate else FULL
        self.store = Store.of(options.work, options.target)

    def section(self, name: str) -> Section:
        """Begin a part."""
        return Section(self.store, name)

    @cached_property
    def torch(self) -> Any:
        """The torch module; its own random numbers are seeded."""
        import torch

        torch.manual_seed(0)
        return torch

    @property
    def device(self) -> str:
        """The torch device."""
        return "cpu" if self.options.emulate else "cuda"

    @cached_property
    def clock(self) -> Clock:
        """The clock of the device."""
        return Clock(self.torch, not self.options.emulate)

    @property
    def library(self) -> Path:
        """The library of kernels that the run built, or was given."""
        return self.options.library or self.options.work / "libcellscribe_kernels.so"

    @property
    def bundle_folder(self) -> Path:
        """The bundle that the run exported, or was given."""
        return self.options.bundle or self.options.work / f"{self.sizes.shape}-fp16"

    @cached_property
    def bundle(self) -> Any:
        """The bundle, opened."""
        from cellscribe.engine.bundle import open_bundle

        return open_bundle(self.bundle_folder)

    @cached_property
    def backend(self) -> Any:
        """The CUDA backend with the run's own kernels."""
        return self.new_backend()

    def new_backend(self, **options: Any) -> Any:
        """Open another CUDA backend."""
        from cellscribe.engine.backends.cuda import CudaBackend

        return CudaBackend(self.bundle, self.device, self.library, **options)

    @cached_property
    def ceilings(self) -> Ceilings:
        """What the part `machine` measured in this run; measured anew where it failed."""
        from gpu.machine import measured

        found = self.store.read("machine")
        if "copy_gbs" not in found or "matmul_tflops" not in found:
            found = measured(self)
        bandwidth = max(found["copy_gbs"], found["read_gbs"])
        return Ceilings("measured in this run", bandwidth * 1e9, found["matmul_tflops"] * 1e12, self.l2_bytes)

    @cached_property
    def l2_bytes(self) -> int:
        """Bytes of the L2 cache; 0 where there is no GPU."""
        if self.options.emulate:
            return 0
        return int(self.torch.cuda.get_device_properties(0).L2_cache_size)

    @cached_property
    def model(self) -> Model:
        """Sizes of the bundle over its cells."""
        return model_of(self.bundle.manifest, self.cells(1).genes.shape[1])

    def cells(self, count: int) -> Any:
        """Tokens of `count` real cells: the packaged ones, over and over."""
        batch = self._packaged
        rows = np.arange(count) % batch.n_cells
        ids = tuple(f"{batch.cell_ids[row]}#{i // batch.n_cells}" for i, row in enumerate(rows))
        taken = {name: getattr(batch, name)[rows] for name in ("rows", "genes", "values", "mask", "columns")}
        return replace(batch, cell_ids=ids, **taken)

    @cached_property
    def _packaged(self) -> Any:
        from cellscribe.engine.cells import CellTokenizer, open_cells
        from cellscribe.engine.packaged import packaged_cells

        with open_cells(packaged_cells()) as source:
            tokenizer = CellTokenizer(self.bundle.manifest.cell_input, self.bundle.vocabulary, source)
            (batch,) = tokenizer.batches(batch_cells=source.n_cells)
        return batch

    @cached_property
    def parts(self) -> Any:
        """The torch modules of the bundle's seed in float32, on the device."""
        from cellscribe.export.random_model import random_parts

        parts = random_parts(self.sizes.shape, 0)
        parts.encoder.to(self.device)
        parts.decoder.to(self.device)
        return parts

    @cached_property
    def half_decoder(self) -> Any:
        """The torch decoder rounded to fp16, as the export rounds it."""
        decoder = copy.deepcopy(self.parts.decoder).half()
        decoder.restore_tables()
        return decoder.to(self.device)

    @cached_property
    def half_encoder(self) -> Any:
        """The torch encoder rounded to fp16."""
        return copy.deepcopy(self.parts.encoder).half()
