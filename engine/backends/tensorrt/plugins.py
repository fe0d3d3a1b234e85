"""The plugin library for TensorRT 11."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from cellscribe.engine.backends.tensorrt.log import listening
from cellscribe.engine.backends.tensorrt.products import ENTERPRISE, Installed
from cellscribe.engine.errors import PlanError

IPluginRegistry: TypeAlias = Any

LIBRARY = "libcellscribe_tensorrt.so"


def plugin_library() -> Path | None:
    """Return the installed plugin library, if there is one."""
    import cellscribe.kernels

    for folder in cellscribe.kernels.__path__:
        if (path := Path(folder) / LIBRARY).is_file():
            return path
    return None


def load_plugins(installed: Installed, names: tuple[str, ...]) -> None:
    """Load the plugins that a plan was built with.

    Never for TensorRT for RTX: it has no plugins, and its parser ends the process at a node that a library claims.

    Raises
    ------
    PlanError
        When one is missing or does not load.
    """
    for name in names:
        path = plugin_library()
        if installed.product != ENTERPRISE or name != LIBRARY or path is None:
            raise PlanError(
                f"the plan needs the plugin {name}, which is not installed for {installed.product.title}; install "
                "cellscribe with its kernels, or build the plan anew without it."
            )
        _load(installed.trt, path)


@cache
def _load(trt: Any, path: Path) -> None:
    registry: IPluginRegistry = trt.get_plugin_registry()
    with listening(trt) as heard:
        handle = registry.load_library(str(path))
    if handle is None:
        raise PlanError(f"the plugin {path} does not load ({heard.reason()}); install cellscribe for this CUDA.")
