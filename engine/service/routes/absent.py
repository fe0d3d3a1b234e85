"""Tasks that the loaded bundle lacks: each address says so, and what there is. To be included behind all others."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.service import Service

router = APIRouter(include_in_schema=False)


@router.post("/v1/describe")
@router.post("/v1/annotate")
@router.post("/v1/embed")
@router.post("/v1/generate")
async def absent(request: Request) -> Response:
    """Say that the bundle does not do this."""
    service: Service = request.app.state.service
    service.check_task(request.url.path.rpartition("/")[2])
    raise RequestError(404, "there is nothing at this address; see /openapi.json.")
