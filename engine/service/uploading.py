"""Files as bodies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from starlette.requests import Request

from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import InputError
from cellscribe.engine.service.bodies import saved_body
from cellscribe.engine.service.cell_files import CellFile
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.service import Service

T = TypeVar("T")

_MAGIC = b"\x89HDF\r\n\x1a\n"
_BODY = "upload.h5ad"  # the name of a file that has none


async def uploaded(service: Service, request: Request, name: str, values: ValueChoice) -> CellFile:
    """Take a file in, open it and keep it.

    Raises
    ------
    RequestError
        413 for too large a file, 422 for what is no HDF5.
    InputError
        For a file that cannot be read.
    """
    path = await _saved(service, request, name)
    return await service.in_thread(lambda: service.files.add(path, name, values))


async def _saved(service: Service, request: Request, name: str) -> Path:
    path = service.files.new_path(name)
    try:
        await saved_body(request, path, service.limits.upload_bytes, service.limits.idle_s)
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise RequestError(422, f"{name} is no HDF5 file, so it is no .h5ad; write it with anndata.")
        return path
    except BaseException:
        service.files.discard(path)
        raise


async def of_upload(service: Service, request: Request, values: ValueChoice, read: Callable[[CellFile], T]) -> T:
    """Take a file in, let its cells be read, and forget it; it takes no place among the files that are kept."""
    path = await _saved(service, request, _BODY)
    file = await service.in_thread(lambda: service.files.opened(path, _BODY, values))
    try:
        return await service.in_thread(lambda: read(file))
    except InputError as error:
        raise RequestError(422, str(error)) from error
    finally:
        await service.in_thread(lambda: service.files.end(file))
