"""What can go wrong with one try, told from the exception that an SDK raised.

Both SDKs come from one generator and share the shape of their exceptions: a status error has `status_code`, `response`
and `body`; a connection error has the transport's exception as its cause. So neither is imported here.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal, Protocol, runtime_checkable

import httpx2

Kind = Literal[
    "rate_limit", "server", "timeout", "connection", "empty", "bad_request",
    "unreachable", "key", "forbidden", "credit", "model", "refusal",
]  # fmt: skip
"""The first row is what `CallFailed.reason` knows. Of the others, `unreachable` (nothing listens there), `key`,
`credit`, `forbidden` and `model` (unknown) may be what no later call can mend; `refusal` is an answer."""

RETRIED: frozenset[Kind] = frozenset({"rate_limit", "server", "timeout", "connection", "empty", "unreachable"})

MALFORMED = (ValueError, AttributeError, TypeError)
"""How an answer that isn't of the form agreed on shows: as no JSON, or as an SDK object (they check nothing) that lacks
a field or has something else in its place."""

_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_error")
_REFUSED = (
    "content_filter", "content_policy_violation", "invalid_prompt", "bio_policy", "misalignment_policy_violation",
)  # fmt: skip
_UNKNOWN_MODEL = ("model_not_found", "not_found_error")
_LONGEST_MESSAGE = 400
_OF_STATUS: dict[int, Kind] = {
    401: "key", 402: "credit", 403: "forbidden", 404: "model", 408: "timeout", 409: "server", 429: "rate_limit",
}  # fmt: skip
_IN_STREAM: dict[str, Kind] = {
    "rate_limit_error": "rate_limit",
    "rate_limit_exceeded": "rate_limit",
    "invalid_request_error": "bad_request",
    "authentication_error": "key",
    "permission_error": "forbidden",
    "timeout_error": "timeout",
}
"""Types and codes of errors that come after a stream has begun, when the status has long been 200."""


class Fault(Exception):  # noqa: N818 - never leaves the package: it becomes a value there
    """One try that brought no reply."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        wait_s: float | None = None,
        status: int | None = None,
        code: str = "",
        param: str = "",
    ) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.wait_s = wait_s
        """before the next try, as the service asks; None where it doesn't say"""
        self.status = status
        """of the HTTP response; None where there was none"""
        self.code = code
        """what the service calls the error"""
        self.param = param
        """the request parameter at fault, where the service names one"""


@dataclass(frozen=True)
class _Detail:
    """The body of an error, whoever wrote it."""

    message: str = ""
    code: str = ""
    type: str = ""
    param: str = ""


@runtime_checkable
class _StatusError(Protocol):
    status_code: int
    response: httpx2.Response
    body: object


@runtime_checkable
class _ErrorWithBody(Protocol):
    body: object


def fault_of(error: Exception) -> Fault:
    """What an exception of an SDK, of its transport or of `MALFORMED` means."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, _StatusError):
        return _of_response(error.status_code, error.response, error.body)
    cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
        return Fault("unreachable", f"no connection: {cause}")
    if isinstance(cause, httpx2.TimeoutException):
        return Fault("timeout", "the service fell silent")
    if isinstance(cause, httpx2.RequestError):
        return Fault("connection", f"the connection broke: {cause or type(cause).__name__}")
    if isinstance(error, MALFORMED):
        return Fault("server", f"what the service sent can't be read: {error}"[:_LONGEST_MESSAGE])
    if isinstance(error, _ErrorWithBody) and error.body is not None:
        return of_event(error.body)
    return Fault("connection", str(error)[:_LONGEST_MESSAGE])


def of_event(body: object) -> Fault:
    """An error that a service reports within a stream, or in place of an answer with status 200."""
    detail = _detail(body)
    kind = _of_code(detail) or _IN_STREAM.get(detail.type) or _IN_STREAM.get(detail.code) or "server"
    return Fault(kind, detail.message or "the service reported an error and gave no reason", status=200)


def _of_response(status: int, response: httpx2.Response, body: object) -> Fault:
    if status < 400:
        return of_event(body)
    detail = _detail(body)
    kind = _of_code(detail) or _OF_STATUS.get(status) or ("server" if status >= 500 else "bad_request")
    wait_s = _retry_after(response.headers)
    message = f"status {status}: {detail.message}" if detail.message else f"status {status}"
    if wait_s is not None:
        message += f" (it asks to wait {wait_s:.3g} s)"
    return Fault(kind, message, wait_s=wait_s, status=status, code=detail.code, param=detail.param)


def _of_code(detail: _Detail) -> Kind | None:
    said = (detail.code, detail.type)
    if any(code in said for code in _NO_CREDIT) or "credit balance is too low" in detail.message:
        return "credit"
    if any(code in said for code in _REFUSED):
        return "refusal"
    if any(code in said for code in _UNKNOWN_MODEL):
        return "model"
    return None


def _detail(body: object) -> _Detail:
    """Read `{"error": {"message": ...}}`, what is inside of it, `{"detail": ...}`, or plain text."""
    while isinstance(body, Mapping) and isinstance(body.get("error"), Mapping | str):
        body = body["error"]
    if not isinstance(body, Mapping):
        return _Detail(message=str(body or "")[:_LONGEST_MESSAGE])
    message = body.get("message") or body.get("detail") or ""
    return _Detail(
        message=str(message)[:_LONGEST_MESSAGE],
        code=str(body.get("code") or ""),
        type=str(body.get("type") or ""),
        param=str(body.get("param") or ""),
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the service asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date (RFC 9110)."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    if (seconds := _number(said)) is not None or said is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None


def _number(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None
