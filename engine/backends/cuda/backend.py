"""A bundle on one GPU."""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cellscribe.engine.backends.base import Encoded, SlotPlan
from cellscribe.engine.backends.contract import check_length
from cellscribe.engine.backends.cuda.decoder import Decoder
from cellscribe.engine.backends.cuda.encoder import Encoder
from cellscribe.engine.backends.cuda.faults import CELLS_AHEAD, require_room, running
from cellscribe.engine.backends.cuda.few import FewRows
from cellscribe.engine.backends.cuda.loading import load_decoder, load_encoder
from cellscribe.engine.backends.cuda.ops import Ops
from cellscribe.engine.backends.cuda.skinny import SkinnyProducts
from cellscribe.engine.backends.cuda.slots import PROMPT_CELLS, CudaSlots
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import BackendError, BundleError
from cellscribe.kernels.library import library_path, load_library

if TYPE_CHECKING:
    from torch import Tensor

_MIN_CAPABILITY = (8, 0)
_LATENT_WIDTHS = (64, 128, 256, 512)
_MAX_HEAD_WIDTH = 128
_MAX_LATENT_HEADS = 64


class CudaBackend:
    """Runs a bundle with our kernels, in fp16 with float32 sums, norms and residual stream.

    Parameters
    ----------
    bundle
        An opened bundle, fp16 or fp32 (rounded while it is loaded).
    device
        A torch device; "cpu" runs the kernels of an emulating library, for tests.
    library
        The library of kernels; None takes the one that was built with the package.
    step_weights
        ``int8`` reads 8-bit weights, one scale per column, in steps of at most eight rows: half the bytes, another
        text. It takes their room besides, and neither its speed nor its cost in quality was measured yet.

    Raises
    ------
    BackendError
        When it cannot run here; :func:`cuda_problems` says why without raising.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "cuda",
        library: Path | None = None,
        step_weights: Literal["fp16", "int8"] = "fp16",
    ) -> None:
        found = library or library_path()
        problems = (*shape_problems(bundle), *(() if library else cuda_problems(bundle, device)))
        if problems or found is None:
            raise BackendError(" ".join(problems))
        import torch

        self.bundle, self._step_weights = bundle, step_weights
        self._torch: Any = torch
        self._device = torch.device(device)
        self._ops = Ops(load_library(found), torch, self._device)
        # Sums of products stay in float32; torch would otherwise round partial sums where it splits them.
        self._torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self._stream = self._torch.cuda.Stream(self._device) if self._device.type == "cuda" else None

    @property
    def device(self) -> str:
        """Device and libraries in words."""
        if self._device.type != "cuda":
            return f"emulated kernels on the CPU, torch {self._torch.__version__}"
        name = self._torch.cuda.get_device_name(self._device)
        return f"{name}, CUDA {self._torch.version.cuda}, torch {self._torch.__version__}, fp16"

    @property
    def precision(self) -> str:
        """What it computes in, whatever the bundle's precision is."""
        return "fp16"

    @property
    def cells_ahead(self) -> int:
        """Two chunks of the encoder."""
        return CELLS_AHEAD if self._device.type == "cuda" else 0

    @cached_property
    def _encoder(self) -> Encoder:
        weights = load_encoder(self.bundle, self._torch, self._device)
        return Encoder(weights, self._ops, self.bundle.manifest.encoder_shape.n_heads)

    @cached_property
    def _decoder(self) -> Decoder:
        manifest = self.bundle.manifest
        if manifest.decoder is None or manifest.cross_attention is None or manifest.prompt is None:
            raise BundleError(
                f"the bundle {self.bundle.name} holds an encoder alone; it embeds cells but writes no text."
            )
        weights = load_decoder(self.bundle, self._torch, self._device)
        return Decoder(weights, manifest.decoder, manifest.cross_attention, self._ops)

    @cached_property
    def _few(self) -> FewRows | None:
        products = SkinnyProducts(self._ops)
        if not products.serves_all(self._decoder.weights):
            return None
        if self._step_weights == "int8":
            products.round_to_int8(self._decoder.weights)
        return FewRows(self._decoder, products)

    @cached_property
    def _prompt(self) -> tuple[Tensor, Tensor]:
        """Hidden states fp32 [P, d] and lower caches fp16 [n_lower, 2, K, P, D] of the whole prompt.

        The prefix holds all but the last token, which goes through the lower layers once, here.
        """
        torch, decoder, prompt = self._torch, self._decoder, self.bundle.manifest.prompt
        assert prompt is not None
        shape, prefix, known = decoder.shape, decoder.weights.prefix, len(prompt.token_ids) - 1
        caches = self._ops.half(shape.n_lower, 2, 1, shape.n_kv_heads, known + 1, shape.d_head)
        for i in range(shape.n_lower):
            caches[i, 0, 0, :, :known], caches[i, 1, 0, :, :known] = prefix[f"key.{i}"], prefix[f"value.{i}"]
        last = torch.tensor([prompt.token_ids[-1]], device=self._device)
        positions = torch.full((1,), known, dtype=torch.int32, device=self._device)
        stream = decoder.run(decoder.embed(last), 1, range(shape.n_lower), positions, caches, None)
        x = stream.x if stream.update is None else stream.x + stream.update.float()
        return torch.cat((prefix["hidden"].float(), x)), caches[:, :, 0]

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells, on a stream of its own: another thread may be decoding meanwhile."""
        with running(self._torch, self._device):
            if self._stream is None:
                return self._encoder.encode(batch)
            with self._torch.cuda.stream(self._stream):
                encoded = self._encoder.encode(batch)
            self._stream.synchronize()
            return encoded

    def open_slots(self, plan: SlotPlan) -> CudaSlots:
        """Allocate the slots of a run; RoomError says how many would fit where there is no room for all."""
        check_length(self.bundle, plan.max_new_tokens)
        with running(self._torch, self._device):
            decoder, few, prompt, _ = self._decoder, self._few, self._prompt, self._encoder
            require_room(self._torch, self._device, self.bundle.manifest, plan, PROMPT_CELLS)
            return CudaSlots(decoder, few, prompt, plan)


def cuda_problems(bundle: Bundle, device: str = "cuda") -> tuple[str, ...]:
    """Return one sentence for every reason why this machine cannot run a bundle with our kernels; none if it can."""
    if importlib.util.find_spec("torch") is None:
        return ("the CUDA backend needs torch; install it with: pip install 'cellscribe[cuda]'.",)
    if library_path() is None:
        return ("the CUDA kernels were not built; install cellscribe where nvcc, the CUDA compiler, is found.",)
    import torch

    if not torch.cuda.is_available():
        return ("torch sees no NVIDIA GPU; check the driver with nvidia-smi, and that torch was built for CUDA.",)
    capability = torch.cuda.get_device_capability(device)
    if capability < _MIN_CAPABILITY:
        found = f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}"
        return (f"{found}, and the kernels need 8.0 or newer; choose --backend onnxruntime.",)
    return shape_problems(bundle)


def shape_problems(bundle: Bundle) -> tuple[str, ...]:
    """Return one sentence for every size of a bundle that the kernels are not built for, and for its precision."""
    manifest = bundle.manifest
    if manifest.gpu_problem:
        return (manifest.gpu_problem,)
    widths = {"encoder": manifest.encoder_shape.d_model // manifest.encoder_shape.n_heads}
    if manifest.decoder is not None:
        widths["decoder"] = manifest.decoder.d_head
    cross = manifest.cross_attention
    if cross is not None:
        widths["cross-attention"] = cross.d_head
    found = [
        f"the {where} of {bundle.name} has heads of width {width}, and the kernels take multiples of 8 up to 128; "
        "choose --backend onnxruntime."
        for where, width in widths.items()
        if width % 8 or width > _MAX_HEAD_WIDTH
    ]
    if cross is not None and cross.form == "latent" and cross.d_memory not in _LATENT_WIDTHS:
        found.append(
            f"the memory of {bundle.name} is {cross.d_memory} wide, and the kernels take 64, 128, 256 or 512; "
            "choose --backend onnxruntime."
        )
    if cross is not None and cross.form == "latent" and cross.n_heads > _MAX_LATENT_HEADS:
        found.append(
            f"the cross-attention of {bundle.name} has {cross.n_heads} heads, and the kernel takes up to "
            f"{_MAX_LATENT_HEADS}; choose --backend onnxruntime."
        )
    return tuple(found)
