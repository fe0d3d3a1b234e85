"""Every peer: what it runs, where, and on which form of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peers.agreement import NEAR_TIE
from peers.environments import HERE, default_folder, environment
from peers.models import model_folder
from peers.worker import Worker


@dataclass(frozen=True)
class Peer:
    """An engine, or one of its settings.

    Parameters
    ----------
    name
        As tables say it.
    environment, module
        Where it runs, and its worker's module.
    form
        The model's format (`peers.models.FORMATS`); empty where the worker makes its own weights.
    bits
        Bits a weight: 32, 16, 8 or 4.
    options
        Options of ``open``.
    variables
        Environment variables of its process.
    request
        More fields of its requests (`batch`).
    near_tie
        How small a lead of the reference another choice of its may overrule, where it computes in float32.
    """

    name: str
    environment: str
    module: str
    form: str
    bits: int
    options: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    near_tie: float = NEAR_TIE

    def with_batch(self, batch: int, name: str = "", **changes: Any) -> Peer:
        """Return it with so many prompts at a time."""
        return replace(self, name=f"{name or self.name}, batch {batch}", request={"batch": batch}, **changes)


def _torch(name: str, bits: int = 32, **options: Any) -> Peer:
    return Peer(name, "torch", "peers.causal_torch", "hf", bits, options)


def _genai(name: str, precision: str, bits: int) -> Peer:
    form = f"genai-{precision}"
    return Peer(name, "onnxruntime_genai", "peers.causal_genai", form, bits, {"precision": precision})


def _ctranslate2(name: str, precision: str, bits: int, **options: Any) -> Peer:
    options = {"precision": precision, **options}
    return Peer(name, "ctranslate2", "peers.causal_ctranslate2", f"ct2-{precision}", bits, options)


def _llama_cpp(name: str, precision: str, bits: int) -> Peer:
    # Its cache is half precision by default and its flash attention computes in half precision whatever the cache
    # (logits off by 1e-3, against 4e-6 without); fp32 means all of it.
    exact = {"cache": "f32", "flash": False} if bits == 32 else {}
    options = {"precision": precision, **exact}
    return Peer(name, "llama_cpp", "peers.causal_llama_cpp", f"gguf-{precision}", bits, options)


REFERENCE = "transformers"  # whose fp32 tokens the others are compared with
LLAMA_PEERS = (
    _torch(REFERENCE, loop="growing"),
    _torch("transformers generate", loop="generate"),
    _torch("transformers oneDNN", loop="growing", packed=True),
    _torch("transformers compiled", loop="static", compiled="default"),
    _torch("transformers bf16", 16, loop="growing", precision="bf16"),
    Peer("optimum-onnx", "optimum_onnx", "peers.causal_optimum", "onnx-fp32", 32),
    _genai("onnxruntime-genai", "fp32", 32),
    _genai("onnxruntime-genai int8", "int8", 8),
    _genai("onnxruntime-genai int4", "int4", 4),
    _ctranslate2("CTranslate2", "float32", 32),
    _ctranslate2("CTranslate2 int8", "int8", 8),
    # Where oneDNN gives its int8 products one thread, two workers with half of the batch each use both cores.
    _ctranslate2("CTranslate2 int8, 2 workers", "int8", 8, workers=2),
    _llama_cpp("llama.cpp F32", "F32", 32),
    _llama_cpp("llama.cpp F16", "F16", 16),
    _llama_cpp("llama.cpp Q8_0", "Q8_0", 8),
    _llama_cpp("llama.cpp Q4_0", "Q4_0", 4),
)
OUR_LLAMAS = tuple(
    Peer(f"cellscribe {precision}", HERE, "peers.ours_llama", form, bits, {"precision": precision})
    for precision, form, bits in (
        ("fp32", "hf", 32),
        ("fp16", "hf", 16),
        ("int8", "cellscribe-int8", 8),
        ("int4", "cellscribe-int4", 4),
    )
)
# llama.cpp's GELU is that of a table in half precision by tanh, whatever the weights (ggml-org/llama.cpp#29252).
_HALF_GELU = 0.05
OUR_C2S = tuple(
    Peer(f"cellscribe {precision}", HERE, "peers.ours_c2s", f"c2s-{precision}", bits)
    for precision, bits in (("fp32", 32), ("fp16", 16), ("int8", 8), ("int4", 4))
)


def c2s_peers(batch: int) -> tuple[Peer, ...]:
    """Return all engines that can run a GPT-NeoX, ours first, `batch` prompts at a time."""
    return tuple(
        one.with_batch(batch, near_tie=_HALF_GELU if one.environment == "llama_cpp" else NEAR_TIE)
        for one in (*OUR_C2S, *LLAMA_PEERS)
        if not one.options.get("compiled")
    )


SEED_PEERS = (
    Peer("torch eager", HERE, "peers.seed_lingocell", "", 32),
    Peer("torch oneDNN", HERE, "peers.seed_lingocell", "", 32, {"packed": True}),
    Peer("torch compiled", HERE, "peers.seed_lingocell", "", 32, {"compiled": "default"}),
)
ENCODER_PEERS = (Peer("scGPT in torch", HERE, "peers.seed_scgpt", "", 32),)


def start(
    peer: Peer, shape: str = "", folder: Path | None = None, *, timeout_seconds: float = 1800.0, **options: Any
) -> tuple[Worker, dict[str, Any]]:
    """Make what a peer needs, start its worker and open its model.

    Parameters
    ----------
    peer
        Which.
    shape
        A name of `peers.shapes.SHAPES`, for peers that run a plain decoder.
    folder
        Where environments, models and logs are kept; None takes the default.
    timeout_seconds
        The worker's.
    options
        More options of ``open`` (``threads``; ``shape`` of the seed's workers).

    Returns
    -------
    The open worker and what it answered.

    Raises
    ------
    MissingPeerError
        When it cannot be had, in one sentence.
    """
    root = folder or default_folder()
    found = environment(peer.environment, root)
    if found.python is None:
        raise MissingPeerError(f"{peer.name}: {found.why}")
    opened = {**peer.options, **options}
    try:
        if peer.form:
            opened["model"] = str(model_folder(shape, peer.form, root))
    except Exception as error:
        raise MissingPeerError(f"{peer.name}: {error}") from error
    log = root / "logs" / f"{peer.name.replace(' ', '-')}.log"
    worker = Worker(
        peer.name, found.python, peer.module, log=log, variables=peer.variables, timeout_seconds=timeout_seconds
    )
    try:
        return worker, worker.ask({"do": "open", **opened})
    except Exception as error:
        worker.close()
        raise MissingPeerError(str(error)) from error


class MissingPeerError(Exception):
    """A peer cannot be had: its environment, its model or its start failed; one sentence."""
