"""Files as bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from starlette.requests import Request

from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import InputError
from cellscribe.engine.service.bodies import saved_body
from cellscribe.engine.service.cell_files import CellFile
from cellscribe.engine.service.disk import disk_may_be_full
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.service import Service
from cellscribe.engine.service.visits import here

T = TypeVar("T")

_MAGIC = b"\x89HDF\r\n\x1a\n"
_BODY = "upload.h5ad"  # the name of a file that has none


async def uploaded(service: Service, request: Request, name: str, values: ValueChoice) -> CellFile:
    """Take a file in, open it and keep it.

    Raises
    ------
    RequestError
        413 for too large a file, 408 for one that is sent too slowly, 422 for what is no HDF5, 429 where too many are
        under way, or those of others leave no room, 507 where the disk is full.
    InputError
        For a file that cannot be read.
    """
    files, client = service.files, here().client
    with files.under_way(client):
        path = await _saved(service, request, name, service.limits.sending_s)
        here().begin_again()  # it may have taken long to send
        try:
            return await service.threads.use_file(lambda: files.add(path, name, values, client), files.drop)
        except BaseException:
            files.discard(path)
            raise


async def of_upload(service: Service, request: Request, values: ValueChoice, read: Callable[[CellFile], T]) -> T:
    """Take a file in, let its cells be read, and forget it; it takes no place among the files that are kept."""
    files = service.files
    with files.under_way(here().client):
        path = await _saved(service, request, _BODY)
        try:
            file = await service.threads.use_file(lambda: files.opened(path, _BODY, values), files.end)
        except BaseException:
            files.discard(path)
            raise
        try:
            return await service.in_thread(lambda: read(file))
        except InputError as error:
            raise RequestError(422, str(error)) from error
        finally:
            await asyncio.to_thread(files.end, file)  # also where there is no time left


async def _saved(service: Service, request: Request, name: str, sending_s: float | None = None) -> Path:
    files, limits, client = service.files, service.limits, here().client
    with disk_may_be_full():
        path = files.new_path(name)
    try:
        await saved_body(
            request, path, limits.upload_bytes, limits.idle_s, sending_s, lambda count: files.grow(path, client, count)
        )
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise RequestError(422, f"{name} is no HDF5 file, so it is no .h5ad; write it with anndata.")
        return path
    except BaseException:
        files.discard(path)
        raise
