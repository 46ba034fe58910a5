"""Errors to bodies: OpenAI's shape (specification 2.3.0: ErrorResponse) and that of POST /."""

from qwen_openai.errors import ApiError


def error_body(error: ApiError) -> dict[str, object]:
    """Return the body of an error, also for the last event of a stream that broke."""
    return {"error": error.to_object()}


def legacy_error_body(error: ApiError) -> dict[str, object]:
    """Return the body of an error on POST /, whose answers all carry their status."""
    return {"error": error.to_object(), "status": error.status}
