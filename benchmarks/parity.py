"""How far are the graphs from upstream values? ``python benchmarks/parity.py SHARED`` (the folder of golden values).

Writes benchmarks/results/parity.json: the largest differences of ONNX Runtime in fp32 from scGPT's own token states
and cell embeddings.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from hardware import hardware
from results_folder import results_folder

from cellscribe.engine.versions import versions
from cellscribe.export.checkpoint.scgpt import read_scgpt
from cellscribe.export.graphs import EncoderGraph
from cellscribe.export.trace import trace_encoder

CASES = {
    "scgpt_base/ckpt": ("scgpt_base/fixed.npz", "scgpt_base/ragged.npz"),
    "scgpt_category/ckpt": ("scgpt_category/fixed.npz", "scgpt_category/ragged_cls0.npz"),
    **{
        f"scgpt_namings/ckpt_{n}": ("scgpt_namings/fixed.npz", "scgpt_namings/ragged.npz")
        for n in ("wqkv", "impl_wqkv", "in_proj")
    },
}


def compare(session: ort.InferenceSession, values: Path) -> dict[str, float]:
    expected = np.load(values)
    real = ~expected["padding_mask"]
    feed = {"genes": expected["gene_ids"], "values": expected["values"].astype(np.float32), "mask": real}
    memory, cell = session.run(["memory", "cell"], feed)
    return {
        "cell": float(np.abs(cell - expected["cell_emb"]).max()),
        "memory": float(np.abs(memory - expected["transformer_output"])[real].max()),
    }


def main() -> None:
    fixtures, rows = Path(sys.argv[1]) / "fixtures", {}
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint, files in CASES.items():
            path = Path(folder) / f"{checkpoint.replace('/', '_')}.onnx"
            trace_encoder(EncoderGraph(read_scgpt(fixtures / checkpoint).encoder), path)
            session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            for file in files:
                rows[f"{checkpoint} {Path(file).stem}"] = compare(session, fixtures / file)
    result = {"largest_difference": rows, "hardware": hardware(), "versions": versions()}
    (results_folder() / "parity.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
