"""A model and cells made by hand, so that the command line is tested without a bundle."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any, Self

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import cellscribe.engine.cells as cells_package
from cellscribe.cli.app import build
from cellscribe.engine.backends.choose import Choice, Passed
from cellscribe.engine.errors import BundleError, InputError
from cellscribe.engine.output.run import Run
from cellscribe.engine.types import AttentionRecord, Description, Piece, TopGenes

REPORT = {"sentence": "10 of 12 genes matched (83 %).", "warning": ""}
_BOUND = tuple(
    f"cellscribe.{name}" for name in ("cli.work", "cli.annotating", "cli.embedding", "engine.doctor")
)  # modules that take the model, or the cells, when they are imported
WORDS = (" A", " cell", " of", " blood", " with", " GENE1", ".")


class FakeSource:
    """Cells of a file, as the engine opens them."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path} does not exist; check the name.")
        adata = ad.read_h5ad(path)
        self.path, self.n_cells, self.n_genes = path, adata.n_obs, adata.n_vars
        self.obs_names, self.obs = list(adata.obs_names), adata.obs
        self.value_note = "raw counts from X"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def rows_of(self, ids: Sequence[str]) -> np.ndarray:
        missing = [one for one in ids if one not in self.obs_names]
        if missing:
            raise InputError(f"{self.path} has no cell {missing[0]}; check the name.")
        return np.array([self.obs_names.index(one) for one in ids])


@dataclass
class FakeModel:
    """Writes the same words about every cell; `failing` cells fail, `error` is raised instead of working."""

    failing: tuple[str, ...] = ()
    error: BaseException | None = None
    device: str = "CPU, a fake of 2 threads"
    calls: list[dict[str, Any]] = field(default_factory=list)
    passed: tuple[Passed, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def bundle(self) -> SimpleNamespace:
        manifest = SimpleNamespace(
            family="lingocell", precision="fp32", files={}, tasks=("describe",), gpu_problem="", style=None, ranks=None
        )
        folder = Path("nowhere")
        return SimpleNamespace(name="tiny", hash="ab" * 32, folder=folder, manifest=manifest, describes=True)

    @property
    def backend_choice(self) -> Choice:
        return Choice(SimpleNamespace(remarks=self.remarks), "onnxruntime-cpu", self.passed)

    def gene_report(self, source: FakeSource) -> dict[str, str]:
        return REPORT

    def describe_cells(self, source: FakeSource, *, rows: np.ndarray | None = None, **options: Any) -> Run:
        self.calls.append(options)
        if self.error is not None:
            raise self.error
        rows = np.arange(source.n_cells) if rows is None else rows
        names = [source.obs_names[row] for row in rows]
        if options.get("pool"):
            codes = pd.Categorical(source.obs[options["pool"]])
            names, rows = list(codes.categories), np.empty(0, np.int64)
        top = TopGenes(("GENE1", "GENE2"), (0.5, 0.25), (1, 2))
        for name in names:
            for place, word in enumerate(WORDS):
                if options.get("on_piece"):
                    options["on_piece"](name, Piece(word, place, -0.5, top, top))
        done = tuple(self._one(name, top) for name in names)
        if options.get("progress"):
            options["progress"](len(done), len(done), 7 * len(done))
        weights = np.full((1, 2, 7, 3), 1 / 3, np.float32)
        keep = options.get("attention", False)
        return Run(
            rows=rows,
            descriptions=done,
            embeddings=np.ones((len(done), 4), np.float32),
            attention=tuple(AttentionRecord(name, ("<cls>", "GENE1", "GENE2"), weights) for name in names if keep),
            gene_report=REPORT,
            settings={"bundle": "tiny", "backend": self.device, "sampling": "greedy"},
            pooled_by=options.get("pool"),
            pool_of=codes.codes.astype(np.int64) if options.get("pool") else None,
        )

    def embed_cells(self, source: FakeSource, *, rows: np.ndarray, **_: Any) -> Run:
        names = tuple(source.obs_names[row] for row in rows)
        return Run(rows=rows, embeddings=np.ones((len(rows), 4), np.float32), cell_ids=names)

    def _one(self, name: str, top: TopGenes) -> Description:
        if name in self.failing:
            return Description(name, status="failed: all counts are zero")
        return Description(name, "".join(WORDS).strip(), tuple(range(7)), -0.5, 9.0, "stop", top, ("GENE1",))


@pytest.fixture
def cells_file(tmp_path: Path) -> Path:
    counts = np.random.default_rng(0).poisson(1.0, (5, 12)).astype(np.float32)
    obs = pd.DataFrame({"kind": pd.Categorical(list("aabbb"))}, index=[f"cell-{row}" for row in range(5)])
    adata = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"GENE{one}" for one in range(12)]))
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, cells_file: Path) -> Iterator[FakeModel]:
    """Stands in for every bundle but "missing"; fields may be changed by the test."""
    fake = FakeModel()

    def load(bundle: str, **_: Any) -> FakeModel:
        if bundle == "missing":
            raise BundleError("missing is not a folder; name a bundle.")
        return fake

    module = ModuleType("cellscribe.engine.model")
    module.__dict__.update(load=load, Model=FakeModel, packaged_cells=lambda: cells_file)
    monkeypatch.setitem(sys.modules, "cellscribe.engine.model", module)
    monkeypatch.setattr(cells_package, "open_cells", lambda path, **_: FakeSource(Path(path)), raising=False)
    monkeypatch.setattr(cells_package, "CellSource", FakeSource, raising=False)
    for name in _BOUND:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield fake
    for name in _BOUND:
        sys.modules.pop(name, None)


@pytest.fixture
def cellscribe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command line in this process: cellscribe("describe", path, ...)."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CELLSCRIBE_DEBUG", raising=False)

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(build(), [str(one) for one in arguments], prog_name="cellscribe")

    return call
