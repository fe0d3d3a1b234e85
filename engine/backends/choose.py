"""Which backend runs a bundle here: the one asked for, or the best that can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from cellscribe.engine.backends.base import Backend
from cellscribe.engine.backends.opening import CPU, NATIVE, How
from cellscribe.engine.backends.opening import open_one as _open
from cellscribe.engine.backends.text import TextBackend
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.errors import BackendError, PlanError, UsageError
from cellscribe.engine.gpu import has_gpu

if TYPE_CHECKING:
    from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText

BackendName = Literal["auto", "tensorrt", "cuda", "cpu", "onnxruntime", "onnxruntime-cuda", "onnxruntime-cpu"]
NAMES: tuple[str, ...] = get_args(BackendName)
ON_GPU = ("tensorrt", "cuda", "onnxruntime-cuda")
_BEST_FIRST = (*ON_GPU, NATIVE, CPU)
_ONNXRUNTIME = ("onnxruntime-cuda", CPU)
_NO_GPU = "no NVIDIA GPU answers; install or update its driver, and look at CUDA_VISIBLE_DEVICES."


@dataclass(frozen=True)
class Passed:
    """A backend that was passed over, and why, in a sentence."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@dataclass(frozen=True)
class Choice:
    """The backend that runs, its name, and the better ones that cannot (`reasons`).

    For a bundle without an encoder the backend is a :class:`~cellscribe.engine.backends.text.TextBackend`.
    """

    backend: Backend
    name: str
    reasons: tuple[Passed, ...] = ()

    def passed_over(self, with_gpus: bool = True) -> tuple[str, ...]:
        """Say why better backends do not run, one sentence for each reason; on request not of those for GPUs."""
        names: dict[str, list[str]] = {}
        for one in self.reasons:
            if with_gpus or one.name not in ON_GPU:
                names.setdefault(one.why, []).append(one.name)
        return tuple(f"passed over {', '.join(found)}: {why}" for why, found in names.items())


def open_backend(
    bundle: Bundle, name: str = "auto", *, threads: int | None = None, device: int = 0, plans: Path | None = None
) -> Backend:
    """Open a backend; see :func:`choose_backend`."""
    return choose_backend(bundle, name, threads=threads, device=device, plans=plans).backend


def choose_backend(
    bundle: Bundle, name: str = "auto", *, threads: int | None = None, device: int = 0, plans: Path | None = None
) -> Choice:
    """Open the backend of a name, or the best one that runs here.

    Parameters
    ----------
    bundle
        What is to run.
    name
        "tensorrt", "cuda", "onnxruntime-cuda", "cpu" (our own library) or "onnxruntime-cpu"; "auto" is the best of all,
        in that order, and "onnxruntime" the better of the two that bear its name.
    threads
        CPU threads; None takes all that the process may use.
    device
        Number of the GPU.
    plans
        Folder of TensorRT plans; None looks into the bundle and into the user's cache.

    Raises
    ------
    UsageError
        For an unknown name, or plans for a backend that has none or that lie nowhere.
    BackendError
        When a backend that was asked for cannot run here; it says why. With "auto" and "onnxruntime" ONNX Runtime on
        the CPU remains.
    BundleError
        When the bundle is damaged.
    """
    if name not in NAMES:
        raise UsageError(f"backend is {name!r}; choose one of {', '.join(NAMES)}.")
    if plans is not None and name not in ("auto", "tensorrt"):
        raise UsageError(f"--plans (plans) is for TensorRT and the backend is {name}; leave it out or choose tensorrt.")
    check_plans(plans)
    how = How(threads, device, plans)
    if name not in ("auto", "onnxruntime"):
        problem = problem_of(bundle, name, device=device, plans=plans)
        if problem:
            raise BackendError(f"the backend {name} cannot run here: {problem}")
        return Choice(_open(bundle, name, how), name)
    passed: list[Passed] = []
    for one in _BEST_FIRST if name == "auto" else _ONNXRUNTIME:
        backend = _try(bundle, one, how, passed)
        if backend is not None:
            return Choice(backend, one, tuple(passed))
    return Choice(_open(bundle, CPU, how), CPU, tuple(passed))


def choose_text_backend(
    bundle: Bundle, name: str = "auto", threads: int | None = None, *, device: int = 0, plans: Path | None = None
) -> TextBackend:
    """Open the backend of a name for a bundle without an encoder, or the best one; see :func:`choose_backend`."""
    return cast(TextBackend, choose_backend(bundle, name, threads=threads, device=device, plans=plans).backend)


def padding_backend(bundle: Bundle, opened: TextBackend, name: str, threads: int | None = None) -> OnnxRuntimeText:
    """Return what embeds padded prompts: the backend that is opened, or else, with "auto", ONNX Runtime on the CPU.

    Raises
    ------
    BackendError
        When another backend was asked for by its name.
    """
    from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText

    if isinstance(opened, OnnxRuntimeText):
        return opened
    if name != "auto":
        raise BackendError(
            f"the backend {name} does not pad prompts, as --upstream-padding (upstream_padding) asks; choose {CPU}."
        )
    return OnnxRuntimeText(bundle, threads)


def check_plans(plans: Path | None) -> None:
    """Raise UsageError unless the folder of plans that a user names is there."""
    if plans is not None and not plans.is_dir():
        raise UsageError(
            f"--plans (plans) is {plans}, which is no folder; name one made by `cellscribe build --output`."
        )


def examine_backends(bundle: Bundle, plans: Path | None = None) -> Iterator[Passed]:
    """Yield every backend with what keeps it from running here; an empty `why` means that nothing is known to."""
    for name in _BEST_FIRST:
        yield Passed(name, problem_of(bundle, name, plans=plans))


def problem_of(bundle: Bundle, name: str, *, device: int = 0, plans: Path | None = None) -> str:
    """Say why a backend cannot run a bundle on this machine; empty when nothing is known to keep it from it.

    Parameters
    ----------
    bundle, name, device, plans
        As for :func:`choose_backend`, with the name of one backend.
    """
    if name == CPU:
        return ""
    if name == NATIVE:
        from cellscribe.engine.backends.cpu import cpu_problem

        return cpu_problem()
    if bundle.manifest.gpu_problem:
        return bundle.manifest.gpu_problem
    if name == "cuda" and any(getattr(bundle.manifest, part, None) for part in ("style", "ranks", "instruct")):
        return f"its kernels are those of LingoCell, and the bundle {bundle.manifest.reading}."
    if not has_gpu():
        return _NO_GPU
    try:
        return _gpu_problem(bundle, name, How(device=device, plans=plans))
    except ImportError as error:
        return f"a part of it is not installed ({error})."
    except BackendError as error:
        return str(error)


def torch_problem() -> str:
    """Say why torch, which holds the arrays beside TensorRT, finds no GPU here; empty when it does."""
    if find_spec("torch") is None:
        return "it needs torch for its arrays; install it with: pip install 'cellscribe[tensorrt]'."
    import torch

    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return f"it needs torch built for CUDA, and torch {torch.__version__} is not; install one that is."
    return f"torch {torch.__version__} sees no NVIDIA GPU; its driver may be too old for CUDA {torch.version.cuda}."


def precision_of(bundle: Bundle, backend: Backend) -> str:
    """Return the precision that a backend computes in: its own, or else the bundle's."""
    precision: str = getattr(backend, "precision", bundle.manifest.precision)
    return precision


def remarks_of(backend: Backend) -> tuple[str, ...]:
    """Return what a user should know about a backend's last run; most have nothing to say."""
    remarks: tuple[str, ...] = getattr(backend, "remarks", ())
    return remarks


def _gpu_problem(bundle: Bundle, name: str, how: How) -> str:
    if name == "cuda":
        from cellscribe.engine.backends.cuda import cuda_problems

        return " ".join(cuda_problems(bundle, f"cuda:{how.device}"))
    if name == "onnxruntime-cuda":
        from cellscribe.engine.backends.cuda_provider import cuda_provider_problem

        return cuda_provider_problem()
    return torch_problem() or plan_problem(bundle, how.device, how.plans)


def plan_problem(bundle: Bundle, device: int = 0, plans: Path | None = None) -> str:
    """Say why no TensorRT plan of a bundle runs on a GPU of this machine; empty when one does."""
    from cellscribe.engine.backends.tensorrt.find import choose_plan
    from cellscribe.engine.backends.tensorrt.machine import this_machine

    try:
        choose_plan(bundle, this_machine(device), output=plans)
    except PlanError as error:
        return str(error)
    return ""


def _try(bundle: Bundle, name: str, how: How, passed: list[Passed]) -> Backend | None:
    """Open one of several; whatever keeps it from opening is noted, and the next one gets its turn."""
    if name == CPU:
        return None
    try:
        problem = problem_of(bundle, name, device=how.device, plans=how.plans)
        if not problem:
            return _open(bundle, name, how)
    except Exception as error:  # of an optional package, of any kind
        problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
    passed.append(Passed(name, problem))
    return None
