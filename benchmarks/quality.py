"""What does each precision cost? ``python benchmarks/quality.py [--backend NAME] [--bundle DIR --cells H5AD]``.

The fp32 bundle (the packaged one, unless another is named) is stored in every precision, and each runs over all cells.
Against what fp32 computes with ONNX Runtime on the CPU: the share of greedy steps with the same token along fp32's own
texts, the perplexity of these texts, the cosine of memory rows, the cell embedding. Against the labels, where the cells
have any: the share of texts that name the right type. Writes benchmarks/results/quality.json and .md; rows of other
backends stay.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import onnx
from hardware import hardware, written
from results_folder import PUBLISHED, results_folder
from safetensors.numpy import save_file

from cellscribe.engine.backends.choose import open_backend
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.bundle.load import PREFIX
from cellscribe.engine.bundle.manifest import PRECISIONS
from cellscribe.engine.measure import Expected, expected_of, real_cells
from cellscribe.engine.model import Model
from cellscribe.engine.packaged import packaged_bundle, packaged_cells
from cellscribe.engine.versions import versions
from cellscribe.export.quantize.bundle import quantize_bundle
from cellscribe.export.quantize.quality import quality_against
from cellscribe.export.sealing import seal
from cellscribe.export.tensorrt.halve import halve

REFERENCE = "onnxruntime-cpu"
NUM_TOKENS = 64
LABEL = "cell_type_reference"


def stored(original: Bundle, precision: str, folder: Path) -> Bundle:
    """Return a bundle in another precision; fp16 is made as TensorRT's builder makes it of fp32."""
    if precision == "fp32":
        return original
    if precision != "fp16":
        quantize_bundle(original.folder, folder / precision, precision)
        return open_bundle(folder / precision)
    target = Path(shutil.copytree(original.folder, folder / precision))
    for path in target.glob("*.onnx"):
        model = halve(onnx.load(str(path)))
        path.with_name(f"{path.name}.data").unlink(missing_ok=True)
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
    save_file({name: value.astype(np.float16) for name, value in original.tensors(PREFIX).items()}, target / PREFIX)
    seal(replace(original.manifest, precision="fp16", files={}), target, original.manifest.versions)
    return open_bundle(target)


def rows(original: Bundle, backend: str, cells: ad.AnnData, expected: Expected) -> Iterator[dict[str, Any]]:
    """Yield what each precision gives on a backend."""
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as at:
            bundle = stored(original, precision, Path(at))
            runner = open_backend(bundle, backend)
            quality = asdict(quality_against(expected, original, bundle, runner, ""))
            quality.pop("source")
            started = time.perf_counter()
            texts = Model(bundle, backend=runner).describe(cells, copy=True)["description"].tolist()
            yield {
                "backend": backend,
                "device": runner.device,
                "precision": precision,
                "bundle": original.name,
                "megabytes": sum(file.bytes for name, file in bundle.manifest.files.items() if ".onnx" in name) / 1e6,
                **({"type_accuracy": type_accuracy(texts, cells)} if LABEL in cells.obs else {}),
                **quality,
                "cells_per_second": len(texts) / (time.perf_counter() - started),
            }


def type_accuracy(texts: list[str], cells: ad.AnnData) -> float:
    """Return the share of texts that name the right type, judged as in demo_heldout.json."""
    names: dict[str, str] = json.loads((PUBLISHED / "demo_heldout.json").read_text())["type_names"]
    longest_first = sorted(names, key=lambda label: -len(names[label]))
    found = [next((label for label in longest_first if names[label] in text), "") for text in texts]
    return float(np.mean(np.array(found) == cells.obs[LABEL].astype(str).to_numpy()))


def as_markdown(result: dict[str, Any]) -> str:
    """Lay the rows out as a table."""
    lines = [
        "| backend | precision | MB of graphs | right type | token of fp32 | perplexity of fp32's texts | "
        "memory cosine, mean (least) | cell embedding within |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        kind = f"{row['type_accuracy']:.1%}".replace("%", " %") if "type_accuracy" in row else "-"
        agreement = f"{row['greedy_agreement']:.2%}".replace("%", " %")
        lines.append(
            f"| {row['backend']} | {row['precision']} | {row['megabytes']:,.2f} | {kind} | {agreement} | "
            f"{row['perplexity']:.4f} | {row['memory_mean_cosine']:.6f} ({row['memory_min_cosine']:.6f}) | "
            f"{row['cell_max_error']:.1g} |"
        )
    first = result["rows"][0]
    about = f"{first['bundle']}, {first['cells']} cells, {first['tokens']:,} greedy tokens"
    where = f"{result['hardware']['processor']}, {result['hardware']['cores']} cores"
    return "\n".join([*lines, "", f"{about}; {where}, ONNX Runtime {result['versions']['onnxruntime']}."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default=REFERENCE)
    parser.add_argument("--bundle", type=Path, default=packaged_bundle())
    parser.add_argument("--cells", type=Path, default=packaged_cells())
    parser.add_argument("--out", type=Path, default=results_folder() / "quality.json")
    options = parser.parse_args()
    original, cells = open_bundle(options.bundle), ad.read_h5ad(options.cells)
    batch, _ = real_cells(original, options.cells, cells.n_obs)
    assert batch is not None
    expected = expected_of(original, open_backend(original, REFERENCE), batch, NUM_TOKENS)
    before = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    kept = [row for row in before if row["backend"] != options.backend]
    found = [*kept, *rows(original, options.backend, cells, expected)]
    result = {"rows": found, "hardware": hardware(), "versions": versions()}
    written(options.out, result)
    table = as_markdown(result)
    options.out.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
