"""Ours on a plain Llama: the native decoder without cross-attention, weights from a Hugging Face folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from peers.protocol import Answer, Engine, StepClock, serve, versions
from safetensors import safe_open
from safetensors.numpy import save_file

from cellscribe.engine.backends.cpu.loading import DecoderLoader
from cellscribe.engine.backends.cpu.packing import Packer
from cellscribe.engine.backends.cpu.passes import Passes
from cellscribe.engine.bundle.onnx_weights import Quantized
from cellscribe.engine.bundle.shapes import DecoderShape
from cellscribe.kernels.cpu_library import CpuLibrary

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_PROMPTS_TOGETHER = 8  # as many as the backend admits at a time
_LAYER = {
    "norm1.weight": "input_layernorm.weight",
    "norm2.weight": "post_attention_layernorm.weight",
    **{f"attention.{part}.weight": f"self_attn.{part}_proj.weight" for part in "qkv"},
    "attention.out.weight": "self_attn.o_proj.weight",
    **{f"feed_forward.{part}.weight": f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")},
}
_WHOLE = {
    "decoder.embedding.weight": "model.embed_tokens.weight",
    "decoder.norm.weight": "model.norm.weight",
    "decoder.head.weight": "lm_head.weight",
}


class LlamaWeights:
    """A Hugging Face Llama under the names of a bundle, each weight [K, N], read when it is asked for."""

    def __init__(self, folder: Path, config: dict[str, Any], precision: str) -> None:
        self._file = safe_open(str(folder / WEIGHTS), "np")
        self._names = set(self._file.keys())
        self._config, self._precision = config, precision

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return a weight."""
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def get(self, name: str) -> npt.NDArray[Any] | None:
        """Return a weight, or None."""
        if name in ("decoder.cos", "decoder.sin"):
            return self._table(np.cos if name.endswith("cos") else np.sin)
        theirs = hugging_face_name(name)
        if theirs not in self._names:
            return None
        found: npt.NDArray[Any] = self._file.get_tensor(theirs)
        if found.ndim == 1 or "embedding" in name:
            return found
        wide = np.ascontiguousarray(found.T)
        return wide.astype(np.float16) if self._precision == "fp16" else wide

    def quantized(self, name: str) -> Quantized | None:
        """Return a weight that is stored quantised, or None."""
        at = hugging_face_name(name)
        if f"{at}.packed" not in self._names:
            return None
        packed = self._file.get_tensor(f"{at}.packed")
        return Quantized(packed, self._file.get_tensor(f"{at}.scales"), packed.shape[-1] // 4)

    def epsilon(self, _scale: str) -> float:
        """Return the epsilon of every norm."""
        return float(self._config["rms_norm_eps"])

    def _table(self, function: Any) -> npt.NDArray[np.float32]:
        width = self._config["hidden_size"] // self._config["num_attention_heads"]
        theta = self._config.get("rope_theta") or self._config["rope_parameters"]["rope_theta"]
        frequency = float(theta) ** (-np.arange(0, width, 2) / width)
        angles = np.arange(self._config["max_position_embeddings"])[:, None] * frequency
        table: npt.NDArray[np.float32] = function(angles).astype(np.float32)
        return table


class OurLlama(Engine):
    """All prompts go through in a few passes, every later step in one."""

    def do_open(self, model: str, threads: int = 2, precision: str = "fp32") -> Answer:
        """Pack the weights."""
        folder = Path(model)
        config = json.loads((folder / CONFIG).read_text())
        self._library = CpuLibrary(threads)
        self._shape = DecoderShape(
            vocab_size=config["vocab_size"],
            d_model=config["hidden_size"],
            n_layers=config["num_hidden_layers"],
            n_lower=config["num_hidden_layers"],
            n_heads=config["num_attention_heads"],
            n_kv_heads=config["num_key_value_heads"],
            d_head=config["hidden_size"] // config["num_attention_heads"],
            d_ffn=config["intermediate_size"],
            max_positions=config["max_position_embeddings"],
        )
        weights: Any = LlamaWeights(folder, config, precision)
        self._decoder = DecoderLoader(Packer(weights, self._library), self._shape, None, None).load()
        return {
            "versions": versions("cellscribe", "numpy"),
            "precision": precision,
            "threads": threads,
            "notes": f"native CPU backend, {self._library.instruction_set}",
            "bytes_per_step": self._decoder.bytes_per_step,
        }

    def do_generate(self, prompts: list[list[int]], new_tokens: int) -> Answer:
        """Write greedily."""
        count, length = len(prompts), len(prompts[0])
        passes = Passes(
            self._library, self._decoder, self._shape, None,
            num_slots=count, capacity=length + new_tokens, num_genes=1,
        )  # fmt: skip
        clock = StepClock()
        last = np.concatenate([
            self._prompts(passes, np.array(prompts[at : at + _PROMPTS_TOGETHER]), at)
            for at in range(0, count, _PROMPTS_TOGETHER)
        ])  # fmt: skip
        chosen = [last]
        clock.tick()
        slots, layers = np.arange(count), (0, self._shape.n_layers)
        for position in range(length, length + new_tokens - 1):
            x = self._decoder.embed(chosen[-1])
            logits, _, _ = passes.run(x, slots, np.full(count, position), layers=layers, chosen=slots)
            chosen.append(logits.argmax(-1))
            clock.tick()
        return clock.answer(np.stack(chosen, 1).tolist(), new_tokens)

    def _prompts(self, passes: Passes, tokens: npt.NDArray[np.int64], first: int) -> npt.NDArray[np.int64]:
        count, length = tokens.shape
        rows, positions = np.arange(first, first + count).repeat(length), np.tile(np.arange(length), count)
        logits, _, _ = passes.run(
            self._decoder.embed(tokens.reshape(-1)),
            rows,
            positions,
            layers=(0, self._shape.n_layers),
            chosen=np.arange(1, count + 1) * length - 1,
        )
        found: npt.NDArray[np.int64] = logits.argmax(-1)
        return found


def hugging_face_name(name: str) -> str:
    """Translate a bundle's weight name."""
    if name in _WHOLE:
        return _WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"model.layers.{layer}.{_LAYER.get(rest, rest)}"


def convert(source: Path, made: Path, precision: str) -> None:
    """Quantise a Hugging Face folder: `quantize_weight` for every linear weight, the head in 8 bits, as in bundles."""
    from cellscribe.export.quantize.blocks import quantize_weight

    tensors: dict[str, npt.NDArray[Any]] = {}
    with safe_open(str(source / WEIGHTS), "np") as file:
        for name in file.keys():  # noqa: SIM118  (a reader of tensors, not a dictionary)
            found = file.get_tensor(name)
            if found.ndim == 1 or "embed" in name:
                tensors[name] = found if found.ndim == 1 else found.astype(np.float16)
                continue
            bits = 4 if precision == "int4" and name != "lm_head.weight" else 8
            quantized = quantize_weight(np.ascontiguousarray(found.T), bits)
            tensors[f"{name}.packed"], tensors[f"{name}.scales"] = quantized.packed, quantized.scales
    save_file(tensors, str(made / WEIGHTS))
    (made / CONFIG).write_text((source / CONFIG).read_text())


if __name__ == "__main__":
    if len(sys.argv) == 4:
        convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    else:
        serve(OurLlama())
