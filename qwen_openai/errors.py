"""Every failure that a client or an operator can meet, as one tree.

    QwenOpenAIError
    ├── ApiError                      answered over HTTP as {"error": {...}}
    │   ├── InvalidRequest            400  something the client can mend
    │   │   ├── InvalidJson           400  code invalid_json
    │   │   ├── UnsupportedParameter  400  code unsupported_parameter
    │   │   ├── UnsupportedContent    400  code unsupported_content
    │   │   └── ContextLengthExceeded 400  code context_length_exceeded
    │   ├── AuthenticationFailed      401  code invalid_api_key
    │   ├── NotFound                  404  code not_found
    │   │   └── ModelNotFound         404  code model_not_found
    │   ├── MethodNotAllowed          405  code method_not_allowed
    │   ├── RequestTimeout            408  code request_timeout
    │   ├── PayloadTooLarge           413  code payload_too_large
    │   ├── UnsupportedMediaType      415  code unsupported_media_type
    │   ├── HeadersTooLarge           431  code headers_too_large
    │   ├── EngineFailed              500  code engine_error: the engine broke while it worked
    │   └── Unavailable               503  with Retry-After
    │       ├── Overloaded            503  code overloaded: the queue is full
    │       └── EngineUnavailable     503  code engine_unavailable: loading, restarting, draining
    └── StartupError                  one sentence and a fix on the terminal, exit code 1

Each class fixes its HTTP status, OpenAI ``type`` and ``code``; an instance carries the message and
``param``. This module knows nothing of HTTP libraries: `routes` turns an ApiError into a response.

Source of the shape: OpenAI's specification 2.3.0, schemas ErrorResponse and Error.
"""

from typing import ClassVar, TypedDict


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


class EngineFailed(ApiError):
    """The engine broke while it worked on this request; a retry may succeed."""

    status = 500
    type = "server_error"
    default_code = "engine_error"


class Unavailable(ApiError):
    """No capacity now. ``retry_after`` is in seconds; the openai SDK obeys values up to 120."""

    status = 503
    type = "server_error"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = min(max(retry_after, 1.0), 120.0)

    def headers(self) -> dict[str, str]:
        return {"retry-after": str(round(self.retry_after))}


class Overloaded(Unavailable):
    default_code = "overloaded"


class EngineUnavailable(Unavailable):
    default_code = "engine_unavailable"


class StartupError(QwenOpenAIError):
    """The program cannot start or go on: one sentence that says why, and one that says the fix."""

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.fix = fix
