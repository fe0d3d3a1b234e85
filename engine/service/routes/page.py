"""The page, and the files it is made of."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from cellscribe.engine.service.problems import RequestError

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).resolve().parent.parent / "page"
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
async def index() -> Response:
    """Give the page."""
    return _file("index.html")


@router.get("/page/{name}")
async def part(name: str) -> Response:
    """Give a file of the page."""
    return _file(name)


def _file(name: str) -> Response:
    path = FOLDER / name
    if name not in {one.name for one in FOLDER.iterdir()}:  # no path of the client's making is looked at
        raise RequestError(404, f"the page has no file {name[:100]!r}.")
    kind = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return FileResponse(path, media_type=kind, headers=headers)
