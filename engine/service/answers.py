"""What clients read: records of descriptions, vectors, and events as they are streamed."""

from __future__ import annotations

import base64
import math
import secrets
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.service.json_text import json_text
from cellscribe.engine.service.orders import Done, FedCell, Token
from cellscribe.engine.types import TopGenes


def head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """Return what every whole answer begins with: an id, its kind, when it was made, and by which bundle."""
    return {"id": new_id(prefix), "object": kind, "created": int(time.time()), "model": model}


def new_id(prefix: str) -> str:
    """Return an id that no other answer has."""
    return f"{prefix}-{secrets.token_hex(12)}"


def record(done: Done, fed: FedCell | None = None) -> dict[str, Any]:
    """Return a finished description of a cell, `fed` where its genes were attended to; no number is None."""
    told = done.description
    return {
        "cell_id": told.cell_id,
        "status": told.status,
        "text": told.text,
        "finish_reason": told.finish_reason or None,
        "tokens": told.num_tokens,
        "mean_logprob": _number(told.mean_logprob, 6),
        "latency_ms": _number(told.latency_ms, 3),
        "queue_ms": _number(done.queue_s * 1e3, 3),
        "time_to_first_token_ms": _number(done.first_token_s * 1e3, 3),
        "top_genes": [] if fed is None else _top_genes(told.top_genes, fed),
        "named_genes": list(told.named_genes),
        "grounding": _number(told.grounding, 4),
    }


def vector(name: str, failure: str, found: npt.NDArray[np.float32] | None) -> dict[str, Any]:
    """Return the vector of a cell, or why it has none."""
    is_ok = found is not None and bool(np.isfinite(found).all())
    return {
        "cell_id": name,
        "status": "ok" if is_ok else f"failed: {failure or 'its embedding is not finite'}",
        "embedding": [round(float(x), 7) for x in found] if found is not None and is_ok else None,
    }


def token(event: Token) -> dict[str, Any]:
    """Return a token as it is streamed."""
    piece = event.piece
    told: dict[str, Any] = {
        "cell": event.cell,
        "i": event.number,
        "text": piece.text,
        "token": piece.token_id,
        "logprob": round(piece.logprob, 6),
        "genes": _pairs(piece.top_genes),
        "running": _pairs(piece.running_genes),
    }
    if event.weights is not None:
        told["weights"], told["most"] = _shades(event.weights)
    return told


def grid(cell: FedCell) -> dict[str, Any]:
    """Return the genes that a cell's weights stand for, and the places of those that were detected in it."""
    is_gene = cell.axis.columns >= 0
    symbols = [cell.axis.symbols[place] for place in np.flatnonzero(is_gene).tolist()]
    return {"grid": symbols, "detected": np.flatnonzero(_is_detected(cell)[is_gene]).tolist()}


def event(name: str, data: object) -> bytes:
    """Return a server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json_text(data))


def data(what: object) -> bytes:
    """Return a server-sent event without a name, as OpenAI's clients read them."""
    return b"data: %s\n\n" % json_text(what)


def _top_genes(top: TopGenes, fed: FedCell) -> list[dict[str, Any]]:
    held = fed.axis.columns[_is_detected(fed)]
    detected = (held[:, None] == np.array(top.columns, np.int64)).any(axis=0).tolist()
    return [
        {"gene": gene, "weight": round(weight, 6), "is_detected": is_detected}
        for gene, weight, is_detected in zip(top.symbols, top.weights, detected, strict=True)
    ]


def _is_detected(fed: FedCell) -> npt.NDArray[np.bool_]:
    """Return which of a cell's positions hold a value: genes that it lacks are fed as zeros."""
    is_detected: npt.NDArray[np.bool_] = (fed.axis.columns >= 0) & (fed.values > 0)
    return is_detected


def _pairs(genes: TopGenes) -> list[tuple[str, float]]:
    return [(gene, round(weight, 5)) for gene, weight in zip(genes.symbols, genes.weights, strict=True)]


def _shades(weights: npt.NDArray[np.float32]) -> tuple[str, float]:
    """Return weights as bytes relative to the largest (255), in base64, and the share that the largest is."""
    most, total = float(weights.max(initial=0.0)), float(weights.sum())
    scaled = np.rint(weights * (255.0 / most)) if most > 0 else np.zeros_like(weights)
    return base64.b64encode(scaled.astype(np.uint8).tobytes()).decode(), round(most / total, 6) if most > 0 else 0.0


def _number(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
