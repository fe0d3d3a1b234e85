"""The model that Triton's Python backend runs: requests in, texts out as they grow.

It is copied into model repositories, beside the bundle that it loads, and needs cellscribe in the Python of the server.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from cellscribe.engine.errors import BackendError, CellscribeError
from cellscribe.engine.triton.cells import Asked, check_length
from cellscribe.engine.triton.loop import Loop
from cellscribe.engine.types import Description, Piece, Sampling, TopGenes

FOLDER = Path(__file__).resolve().parents[1]


class TritonPythonModel:
    """One bundle and its slots, which all requests share."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle that the configuration names: a path from the model's folder on, or an absolute one."""
        given = json.loads(args["model_config"]).get("parameters", {})
        settings = {name: one["string_value"] for name, one in given.items()}
        plans = settings.get("plans")
        self._loop = Loop(
            FOLDER / settings.get("bundle", "bundle"),
            num_slots=int(settings.get("slots", "32")),
            max_new_tokens=int(settings.get("max_new_tokens", "96")),
            backend=settings.get("backend", "auto"),
            plans=FOLDER / plans if plans else None,
        )

    def execute(self, requests: list[Any]) -> None:
        """Take requests in; their responses are sent by the loop, through each request's sender."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._loop.submit(self._asked(request), Sender(sender, bool(_one(request, "STREAM", True))))
            except CellscribeError as error:
                _refuse(sender, error)

    def finalize(self) -> None:
        """Finish what was taken in."""
        self._loop.close()

    def _asked(self, request: Any) -> Asked:
        name = _text(_one(request, "CELL_ID", "")) or request.request_id() or "cell"
        genes = [_text(one) for one in _all(request, "GENES")]
        top_p, temperature = (_decimal(_one(request, one, of)) for one, of in (("TOP_P", 1.0), ("TEMPERATURE", 0.0)))
        sampling = Sampling.of(top_p, temperature, int(_one(request, "SEED", 0)))
        longest = self._loop.max_new_tokens
        length = check_length(int(_one(request, "MAX_NEW_TOKENS", longest)), longest)
        return Asked(name, self._loop.reader.read(genes, _all(request, "VALUES"), name), sampling, length)


class Sender:
    """Sends the pieces of one text, if they are wanted, then the whole of it."""

    def __init__(self, sender: Any, is_streaming: bool) -> None:
        self._sender, self._is_streaming = sender, is_streaming

    @property
    def wants_pieces(self) -> bool:
        """Whether somebody listens to single tokens."""
        return self._is_streaming

    @property
    def has_left(self) -> bool:
        """Whether the client cancelled its request, or closed its connection."""
        return bool(self._sender.is_cancelled())

    def piece(self, piece: Piece) -> None:
        """Send one token, with the genes that were attended to while it was chosen."""
        self._send(_response(piece.text, piece.token_id, piece.logprob, piece.top_genes, "", "ok"), 0)

    def done(self, description: Description) -> None:
        """Send the whole text, with the mean log-probability of its tokens and its top genes; 0 where there is none."""
        mean = description.mean_logprob
        self._send(
            _response(
                description.text,
                -1,
                mean if np.isfinite(mean) else 0.0,
                description.top_genes,
                description.finish_reason,
                description.status,
            ),
            pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
        )

    def lost(self, why: str) -> None:
        """Send an error; a client that left is sent one, too, as every request wants a last response."""
        _refuse(self._sender, BackendError(why), pb_utils.TritonError.CANCELLED if self.has_left else None)

    def _send(self, response: Any, flags: int) -> None:
        with contextlib.suppress(pb_utils.TritonModelException):  # a client that left must not end the others' texts
            self._sender.send(response, flags=flags)


def _response(text: str, token: int, logprob: float, genes: TopGenes, reason: str, status: str) -> Any:
    return pb_utils.InferenceResponse(
        output_tensors=[
            pb_utils.Tensor("TEXT", _strings(text)),
            pb_utils.Tensor("TOKEN", np.array([token], np.int64)),
            pb_utils.Tensor("LOGPROB", np.array([logprob], np.float32)),
            pb_utils.Tensor("TOP_GENES", _strings(*genes.symbols)),
            pb_utils.Tensor("TOP_GENE_WEIGHTS", np.array(genes.weights, np.float32)),
            pb_utils.Tensor("FINISH_REASON", _strings(reason)),
            pb_utils.Tensor("STATUS", _strings(status)),
        ]
    )


def _refuse(sender: Any, error: CellscribeError, code: int | None = None) -> None:
    if code is None:
        code = pb_utils.TritonError.UNAVAILABLE if isinstance(error, BackendError) else pb_utils.TritonError.INVALID_ARG
    response = pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error), code))
    with contextlib.suppress(pb_utils.TritonModelException):
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _all(request: Any, name: str) -> Any:
    """Return the elements of an input in one row: an array of no elements where it is not given."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return np.empty(0) if tensor is None else tensor.as_numpy().ravel()


def _one(request: Any, name: str, default: Any) -> Any:
    values = _all(request, name)
    return values[0] if len(values) else default


def _decimal(value: Any) -> float:
    """Return the number that was meant: 0.9 in 32 bits is 0.89999998 in 64, and would draw other tokens."""
    return float(str(value))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _strings(*texts: str) -> Any:
    return np.array([text.encode() for text in texts], dtype=np.object_)
