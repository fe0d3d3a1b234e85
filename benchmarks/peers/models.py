"""The models that peers run, made from the same weights and kept: ``models/SHAPE`` and ``models/SHAPE.FORMAT``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from peers.environments import HERE, Environment, default_folder, environment
from peers.shapes import write_model
from peers.worker import BENCHMARKS

# Format: the environment that makes it, the module that does, what it starts from, its precision.
_CONVERSIONS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "onnx-fp32": ("optimum_onnx", "peers.causal_optimum", "", ()),
    "genai-fp32": ("onnxruntime_genai", "peers.causal_genai", "", ("fp32",)),
    "genai-int8": ("onnxruntime_genai", "peers.causal_genai", "", ("int8",)),
    "genai-int4": ("onnxruntime_genai", "peers.causal_genai", "", ("int4",)),
    "ct2-float32": ("ctranslate2", "peers.causal_ctranslate2", "", ("float32",)),
    "ct2-int8": ("ctranslate2", "peers.causal_ctranslate2", "", ("int8",)),
    "cellscribe-int8": (HERE, "peers.ours_llama", "", ("int8",)),
    "cellscribe-int4": (HERE, "peers.ours_llama", "", ("int4",)),
    **{f"c2s-{one}": (HERE, "peers.ours_c2s", "", (one,)) for one in ("fp32", "fp16", "int8", "int4")},
    "gguf-F32": ("llama_cpp", "peers.gguf_files", "", ("F32",)),
    "gguf-F16": ("llama_cpp", "peers.gguf_files", "", ("F16",)),
    "gguf-Q8_0": ("llama_cpp", "peers.gguf_files", "gguf-F32", ("Q8_0",)),
    "gguf-Q4_0": ("llama_cpp", "peers.gguf_files", "gguf-F32", ("Q4_0",)),
}
FORMATS = ("hf", *_CONVERSIONS)
_CONVERT_SECONDS = 3600


class ModelError(Exception):
    """A model cannot be made; one sentence."""


def model_folder(shape: str, form: str, folder: Path | None = None) -> Path:
    """Return the folder of a model in one of `FORMATS`, making it where it is not there.

    Raises
    ------
    ModelError
        When its environment or the conversion fails.
    """
    root = folder or default_folder()
    if form == "hf":
        return write_model(root / "models" / shape, shape)
    made = root / "models" / f"{shape}.{form}"
    if made.is_dir():
        return made
    name, module, before, arguments = _CONVERSIONS[form]
    source = model_folder(shape, before or "hf", root)
    found = environment(name, root)
    _convert(found, module, source, made, arguments, root / "logs" / f"{made.name}.log")
    return made


def _convert(found: Environment, module: str, source: Path, made: Path, arguments: tuple[str, ...], log: Path) -> None:
    if found.python is None:
        raise ModelError(f"{made.name} cannot be made, as {found.why}")
    part = made.with_name(f".{made.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {"PYTHONPATH": str(BENCHMARKS), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with log.open("w") as file:
        done = subprocess.run(
            [str(found.python), "-m", module, str(source), str(part), *arguments],
            env={**os.environ, **variables}, stdout=file, stderr=file, check=False, timeout=_CONVERT_SECONDS,
        )  # fmt: skip
    if done.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        shutil.rmtree(part, ignore_errors=True)
        raise ModelError(f"{made.name} cannot be made: {(lines or [f'code {done.returncode}'])[-1][:200]}")
    part.rename(made)
