"""What is wrong with a request: one sentence, and the status that goes with it."""

from __future__ import annotations

from typing import Any

from cellscribe.engine.errors import BackendError, BundleError, CellscribeError, InputError, UsageError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    408: "timeout_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "unavailable_error",
    504: "timeout_error",
}


class RequestError(Exception):
    """A request that is not answered.

    Parameters
    ----------
    status
        HTTP status.
    message
        One sentence: what is wrong, where, how to mend it.
    param
        The part of the body it is about, as "cells[0].genes".
    retry_after_s
        When to come again.
    """

    def __init__(self, status: int, message: str, param: str | None = None, retry_after_s: int | None = None) -> None:
        # Names of genes, cells and files come from outside, and may hold line ends.
        message = " ".join("".join(c if c.isprintable() else " " for c in message).split())
        super().__init__(message)
        self.status, self.message, self.param, self.retry_after_s = status, message, param, retry_after_s

    def body(self) -> dict[str, Any]:
        """Return the body of the answer."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.status}}

    def headers(self) -> dict[str, str]:
        """Return the headers that belong to the answer."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


def problem_of(error: BaseException) -> RequestError:
    """Return what an error of the engine means to a client; what nobody foresaw tells nothing of the inside."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, InputError | UsageError):
        return RequestError(422, str(error))
    if isinstance(error, BundleError):
        return RequestError(404, str(error))
    if isinstance(error, BackendError):
        return RequestError(500, f"the model failed ({str(error).removesuffix('.')}); try again.")
    if isinstance(error, CellscribeError):
        return RequestError(500, str(error))
    return RequestError(500, "something unexpected went wrong in the service; its log says more.")
