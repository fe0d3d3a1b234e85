"""The two products named TensorRT, whose Python modules have the same classes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from typing import Any

from cellscribe.engine.errors import PlanError


@dataclass(frozen=True)
class Product:
    """One of the products: its key in plan names, its Python module, its name in words, how to get it."""

    key: str
    module: str
    title: str
    how: str


RTX = Product("rtx", "tensorrt_rtx", "TensorRT for RTX", "install it with: pip install 'cellscribe[tensorrt]'")
ENTERPRISE = Product("trt", "tensorrt", "TensorRT 11", 'install it by hand (see README, "GPU")')
PRODUCTS = {product.key: product for product in (RTX, ENTERPRISE)}
_OLDEST = {"rtx": (1, 7), "trt": (11, 0)}  # earlier ones lack operators, or are not strongly typed


@dataclass(frozen=True)
class Installed:
    """A product that can be imported here: its module, version, and the CUDA major version it was made for."""

    product: Product
    trt: Any
    version: str
    cuda_major: int | None

    def __str__(self) -> str:
        return f"{self.product.title.removesuffix(' 11')} {self.version}"


@cache
def require(key: str) -> Installed:
    """Import a product.

    Raises
    ------
    PlanError
        When it is not installed, cannot be loaded, or is too old.
    """
    product = PRODUCTS[key]
    try:
        trt = importlib.import_module(product.module)
        if not hasattr(trt, "__version__"):
            raise ModuleNotFoundError(product.module)  # a folder of that name
        version = str(trt.__version__)
    except ModuleNotFoundError as error:
        raise PlanError(f"{product.title} is not installed; {product.how}.") from error
    except Exception as error:  # placeholder packages and missing libraries raise many kinds
        first = str(error).partition("\n")[0]
        raise PlanError(f"{product.title} is installed but does not load ({first}); {product.how}.") from error
    oldest = _OLDEST[key]
    if tuple(int(n) for n in re.findall(r"\d+", version)[:2]) < oldest:
        least = ".".join(map(str, oldest))
        raise PlanError(f"{product.module} {version} is installed and at least {least} is needed; {product.how}.")
    return Installed(product, trt, version, _cuda_major(product))


def installed_products() -> Iterator[Installed]:
    """Yield the products that can be used here."""
    for key in PRODUCTS:
        try:
            yield require(key)
        except PlanError:
            continue


def _cuda_major(product: Product) -> int | None:
    """Read from the names of the installed packages, as in tensorrt_rtx_cu13_libs, which CUDA a product is made for.

    None where they do not say, or name several: which of them was installed last is not known.
    """
    pattern = re.compile(rf"{product.module}[-_]cu(\d+)(?:[-_]|$)")
    names = (str(one.metadata["Name"]) for one in distributions())
    found = {int(match[1]) for name in names if (match := pattern.match(name.replace("-", "_")))}
    return found.pop() if len(found) == 1 else None
