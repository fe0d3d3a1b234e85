"""A Triton model repository made of a bundle: its graphs as models of their own, and a Python model that writes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER
from cellscribe.engine.bundle.manifest import MANIFEST_NAME
from cellscribe.engine.bundle.onnx_external import external_data
from cellscribe.engine.errors import BundleError, OutputError, UsageError
from cellscribe.engine.output.folder import check_target, staging
from cellscribe.engine.triton.cells import check_bundle
from cellscribe.engine.triton.config import ANY, Config, Tensor
from cellscribe.engine.triton.graphs import tensors_of
from cellscribe.engine.triton.plans import ENCODER_PLAN, encoder_plan, plans_of

VERSION = "1"
_ENCODE_BATCH, _ENCODE_DELAY_US = 8, 500
_ONE, _SOME = (1,), (ANY,)
_INPUTS = (
    Tensor("GENES", "TYPE_STRING", _SOME),
    Tensor("VALUES", "TYPE_FP32", _SOME),
    Tensor("CELL_ID", "TYPE_STRING", _ONE, optional=True),
    Tensor("MAX_NEW_TOKENS", "TYPE_INT32", _ONE, optional=True),
    Tensor("TEMPERATURE", "TYPE_FP32", _ONE, optional=True),
    Tensor("TOP_P", "TYPE_FP32", _ONE, optional=True),
    Tensor("SEED", "TYPE_INT64", _ONE, optional=True),
    Tensor("STREAM", "TYPE_BOOL", _ONE, optional=True),
)
_OUTPUTS = (
    Tensor("TEXT", "TYPE_STRING", _ONE),
    Tensor("TOKEN", "TYPE_INT64", _ONE),
    Tensor("LOGPROB", "TYPE_FP32", _ONE),
    Tensor("TOP_GENES", "TYPE_STRING", _SOME),
    Tensor("TOP_GENE_WEIGHTS", "TYPE_FP32", _SOME),
    Tensor("FINISH_REASON", "TYPE_STRING", _ONE),
    Tensor("STATUS", "TYPE_STRING", _ONE),
)


@dataclass(frozen=True)
class RepositoryOptions:
    """How a repository is laid out.

    `name` is that of the Python model, and begins those of the others; empty for the bundle's. `slots` texts are in
    progress at a time, of up to `max_new_tokens` tokens. `plans` is a folder of TensorRT plans made of the bundle.
    """

    name: str = ""
    slots: int = 32
    max_new_tokens: int = 96
    plans: Path | None = None


@dataclass(frozen=True)
class Written:
    """A repository that was written: its folder, and its models with what runs each."""

    folder: Path
    models: tuple[tuple[str, str], ...]

    def lines(self) -> Iterator[str]:
        """Say what there is."""
        yield f"{self.folder}: {len(self.models)} models"
        yield from (f"  {name}  {backend}" for name, backend in self.models)


def write_repository(bundle: Bundle, target: Path, options: RepositoryOptions | None = None) -> Written:
    """Write a model repository for a bundle of the family lingocell.

    Parameters
    ----------
    bundle
        An opened bundle.
    target
        The folder to make; it may exist if it is empty.
    options
        Names and sizes.

    Raises
    ------
    BundleError
        When the bundle describes no cells one by one, or has too few positions for `max_new_tokens`.
    PlanError
        When a folder of plans has none of this bundle, or a damaged one.
    UsageError
        For a name that Triton would not take.
    OutputError
        When the folder is there already, or cannot be written.
    """
    options = options or RepositoryOptions()
    check_bundle(bundle)
    _check_positions(bundle, options.max_new_tokens)
    name = _checked_name(options.name or bundle.name)
    _check_empty(target)
    with staging(target) as folder:
        try:
            configs = tuple(_models(bundle, folder, name, options))
        except OSError as error:
            raise OutputError(
                f"{target} could not be written ({error.strerror}); free some room, or choose another place."
            ) from error
    return Written(target, tuple((one.name, one.platform or one.backend) for one in configs))


def _models(bundle: Bundle, folder: Path, name: str, options: RepositoryOptions) -> Iterator[Config]:
    main = folder / name
    _copy(bundle, main / "bundle")
    plans = () if options.plans is None else plans_of(bundle, options.plans)
    for plan in plans:
        shutil.copytree(plan.folder, main / "plans" / plan.folder.name)
    chosen = encoder_plan(plans)
    for graph in (ENCODER, CROSS, DECODER):
        if graph not in bundle.manifest.files:
            continue
        part = folder / f"{name}_{Path(graph).stem}"
        inputs, outputs = tensors_of(bundle.path(graph))
        batch = options.slots if graph == DECODER else _ENCODE_BATCH
        delay = 0 if graph == DECODER else _ENCODE_DELAY_US
        if graph == ENCODER and chosen is not None:
            batch = chosen.recipe.encode_batch
            _link(main / "plans" / chosen.folder.name / ENCODER_PLAN, part / VERSION / "model.plan")
            yield _configured(
                part, Config(part.name, "tensorrt", inputs, outputs, batch, delay, "KIND_GPU", "tensorrt_plan")
            )
            continue
        _link_graph(main / "bundle" / graph, part / VERSION / "model.onnx")
        yield _configured(part, Config(part.name, "onnxruntime", inputs, outputs, batch, delay))
    settings = {"bundle": "bundle", "backend": "auto"} | ({"plans": "plans"} if plans else {})
    settings |= {"slots": str(options.slots), "max_new_tokens": str(options.max_new_tokens)}
    (main / VERSION).mkdir()
    shutil.copyfile(Path(__file__).with_name("model.py"), main / VERSION / "model.py")
    yield _configured(
        main, Config(name, "python", _INPUTS, _OUTPUTS, kind="KIND_CPU", is_decoupled=True, parameters=settings)
    )


def _configured(folder: Path, config: Config) -> Config:
    (folder / "config.pbtxt").write_text(config.text(), encoding="utf-8")
    return config


def _copy(bundle: Bundle, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in (MANIFEST_NAME, *bundle.manifest.files):
        shutil.copyfile(bundle.folder / name, folder / name)


def _link_graph(graph: Path, folder: Path) -> None:
    """Give a graph and its weights a second name: Triton wants the graph as model.onnx in a folder of that name."""
    _link(graph, folder / "model.onnx")
    for location in sorted({reference.location for reference in external_data(graph)}):
        _link(graph.with_name(location), folder / location)


def _link(path: Path, other: Path) -> None:
    """Name a file twice, so that it takes its room once; copy it where the file system has no such names."""
    other.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(f"{name!r} is no name for a model; give one of letters, digits, '.', '_' and '-' with --name.")
    return name


def _check_positions(bundle: Bundle, max_new_tokens: int) -> None:
    shape, prompt = bundle.manifest.decoder, bundle.manifest.prompt
    room = shape.max_positions - len(prompt.token_ids) if shape and prompt else 0
    if max_new_tokens > room:
        raise BundleError(
            f"the bundle {bundle.name} has room for {room} new tokens, and {max_new_tokens} are asked for; choose a "
            "smaller --max-new-tokens."
        )


def _check_empty(target: Path) -> None:
    if not target.is_dir():
        check_target(target)
    elif any(target.iterdir()):
        raise OutputError(f"{target} exists already and is not empty; choose another name, or remove it first.")
