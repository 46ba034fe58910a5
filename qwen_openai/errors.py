"""Every failure that a client or an operator can meet, as one tree.

    QwenOpenAIError
    ├── ApiError                      answered over HTTP as {"error": {...}}
    │   ├── InvalidRequest            400  something the client can mend
    │   │   ├── InvalidJson           400  code invalid_json
    │   │   ├── UnsupportedParameter  400  code unsupported_parameter
    │   │   ├── UnsupportedContent    400  code unsupported_content
    │   │   └── ContextLengthExceeded 400  code context_length_exceeded
    │   ├── AuthenticationFailed      401  code invalid_api_key
    │   ├── PermissionDenied          403  code permission_denied: a good key, not for this
    │   ├── NotFound                  404  code not_found
    │   │   └── ModelNotFound         404  code model_not_found
    │   ├── MethodNotAllowed          405  code method_not_allowed
    │   ├── RequestTimeout            408  code request_timeout
    │   ├── PayloadTooLarge           413  code payload_too_large
    │   ├── UnsupportedMediaType      415  code unsupported_media_type
    │   ├── RateLimited               429  code rate_limit_exceeded, with Retry-After: the key's own
    │   │   └── QuotaExceeded         429  code insufficient_quota: no retry mends it
    │   ├── HeadersTooLarge           431  code headers_too_large
    │   ├── EngineFailed              500  code engine_error: the engine broke while it worked
    │   ├── UpstreamFailed            502  code upstream_error: an upstream broke, lied or left
    │   │   └── ModelGone             502  the same: it does not have the model (any more)
    │   ├── Unavailable               503  with Retry-After: our capacity
    │   │   ├── Overloaded            503  code overloaded: the queue is full
    │   │   │   └── UpstreamBusy      503  the same: an upstream has no room for us
    │   │   └── EngineUnavailable     503  code engine_unavailable: loading, restarting, draining
    │   └── DeadlineExceeded          504  code deadline_exceeded: the caller's time is over
    │       └── UpstreamTimeout       504  code upstream_timeout: an upstream was silent too long
    └── StartupError                  one sentence and a fix on the terminal, exit code 1

Each class fixes its HTTP status, OpenAI ``type`` and ``code``; an instance carries the message and
``param``. This module knows nothing of HTTP libraries: `routes` turns an ApiError into a response.

Source of the shape: OpenAI's specification 2.3.0, schemas ErrorResponse and Error.
"""

import math
from typing import ClassVar, TypedDict

# Seconds. Above this the openai SDK does not retry at all.
MOST_RETRY_AFTER = 120.0


class ErrorObject(TypedDict):
    """The inner object of an OpenAI error body; all four keys are required by the specification."""

    message: str
    type: str
    param: str | None
    code: str | None


class QwenOpenAIError(Exception):
    """The root of the tree; never raised itself."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ApiError(QwenOpenAIError):
    """A failure that is answered over HTTP.

    ``message`` says what happened and what to do next; ``param`` names the request field at fault,
    as the client wrote it (``messages[2].content``), or None.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code if code is not None else self.default_code

    def headers(self) -> dict[str, str]:
        """Response headers that belong to this failure, lower-case names."""
        return {}

    def to_object(self) -> ErrorObject:
        """Return the value of the ``error`` key."""
        return {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }


class InvalidRequest(ApiError):
    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"


class InvalidJson(InvalidRequest):
    default_code = "invalid_json"


class UnsupportedParameter(InvalidRequest):
    default_code = "unsupported_parameter"


class UnsupportedContent(InvalidRequest):
    default_code = "unsupported_content"


class ContextLengthExceeded(InvalidRequest):
    """The prompt does not fit; the message holds both numbers."""

    default_code = "context_length_exceeded"


class AuthenticationFailed(ApiError):
    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"

    def headers(self) -> dict[str, str]:
        return {"www-authenticate": "Bearer"}


class PermissionDenied(ApiError):
    """The key is good, but this is not for it. A model that a key may not use is not this error:
    it looks like one that does not exist."""

    status = 403
    type = "invalid_request_error"
    default_code = "permission_denied"


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class ModelNotFound(NotFound):
    default_code = "model_not_found"


class MethodNotAllowed(ApiError):
    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> dict[str, str]:
        return {"allow": self.allow}


class RequestTimeout(ApiError):
    """The client did not finish sending its body in time."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"


class PayloadTooLarge(ApiError):
    status = 413
    type = "invalid_request_error"
    default_code = "payload_too_large"


class UnsupportedMediaType(ApiError):
    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_media_type"


class HeadersTooLarge(ApiError):
    status = 431
    type = "invalid_request_error"
    default_code = "headers_too_large"


class RateLimited(ApiError):
    """The key's own limit, until ``retry_after`` seconds from now; the openai SDK obeys values up
    to 120, so more is never said. ``lasting``: the request is larger than the limit, so that no
    retry mends it."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: float = 1.0, lasting: bool = False) -> None:
        super().__init__(message)
        self.retry_after = min(max(retry_after, 0.001), MOST_RETRY_AFTER)
        self.lasting = lasting

    def headers(self) -> dict[str, str]:
        never = {"x-should-retry": "false"} if self.lasting else {}
        return {**retry_headers(self.retry_after), **never}


class QuotaExceeded(RateLimited):
    """The key's budget of a day or month is spent."""

    type = "insufficient_quota"
    default_code = "insufficient_quota"

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "x-should-retry": "false"}


class EngineFailed(ApiError):
    """The engine broke while it worked on this request; a retry may succeed."""

    status = 500
    type = "server_error"
    default_code = "engine_error"


class UpstreamFailed(ApiError):
    """A server that this gateway stands in front of broke, answered nonsense or hung up."""

    status = 502
    type = "server_error"
    default_code = "upstream_error"


class ModelGone(UpstreamFailed):
    """That server does not have the model (any more); it may be well with others."""


class Unavailable(ApiError):
    """No capacity now. ``retry_after`` is in seconds; the openai SDK obeys values up to 120."""

    status = 503
    type = "server_error"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = min(max(retry_after, 1.0), MOST_RETRY_AFTER)

    def headers(self) -> dict[str, str]:
        return retry_headers(self.retry_after)


class Overloaded(Unavailable):
    default_code = "overloaded"


class UpstreamBusy(Overloaded):
    """An upstream has no room for us (429): nobody's fault, and not our caller's limit."""


class EngineUnavailable(Unavailable):
    default_code = "engine_unavailable"


class DeadlineExceeded(ApiError):
    """The time that the caller gave is over."""

    status = 504
    type = "server_error"
    default_code = "deadline_exceeded"


class UpstreamTimeout(DeadlineExceeded):
    """A server that this gateway stands in front of was silent for too long."""

    default_code = "upstream_timeout"


def retry_headers(seconds: float) -> dict[str, str]:
    """Return the headers that say when to try again: `retry-after` in whole seconds, at least 1,
    for everybody, `retry-after-ms` for the openai SDK, which reads it first."""
    return {
        "retry-after": str(max(math.ceil(seconds), 1)),
        "retry-after-ms": str(max(math.ceil(seconds * 1000), 1)),
    }


class StartupError(QwenOpenAIError):
    """The program cannot start or go on: one sentence that says why, and one that says the fix."""

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.fix = fix
