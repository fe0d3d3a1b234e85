"""What clients read: records of descriptions, and events as they are streamed."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

from cellscribe.engine.service.orders import Done, FedCell, Token
from cellscribe.engine.types import TopGenes


def record(done: Done) -> dict[str, Any]:
    """Return a finished description; numbers that do not exist are None."""
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
        "top_genes": [
            {"gene": gene, "weight": round(weight, 6)}
            for gene, weight in zip(told.top_genes.symbols, told.top_genes.weights, strict=True)
        ],
        "named_genes": list(told.named_genes),
        "grounding": _number(told.grounding, 4),
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


def grid(cell: FedCell) -> list[str]:
    """Return the genes that a cell's weights stand for."""
    columns = cell.axis.columns.tolist()
    return [symbol for symbol, column in zip(cell.axis.symbols, columns, strict=True) if column >= 0]


def event(name: str, data: object) -> bytes:
    """Return a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def data(what: object) -> bytes:
    """Return a server-sent event without a name, as OpenAI's clients read them."""
    return f"data: {json.dumps(what, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def _pairs(genes: TopGenes) -> list[tuple[str, float]]:
    return [(gene, round(weight, 5)) for gene, weight in zip(genes.symbols, genes.weights, strict=True)]


def _shades(weights: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[str, float]:
    """Return weights as bytes relative to the largest (255), in base64, and the share that the largest is."""
    most, total = float(weights.max(initial=0.0)), float(weights.sum())
    scaled = np.rint(weights * (255.0 / most)) if most > 0 else np.zeros_like(weights)
    return base64.b64encode(scaled.astype(np.uint8).tobytes()).decode(), round(most / total, 6) if most > 0 else 0.0


def _number(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
