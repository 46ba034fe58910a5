"""Each failure carries what the wire needs, in OpenAI's shape."""

import pytest

from qwen_openai import errors
from qwen_openai.errors import (
    ApiError,
    InvalidRequest,
    QuotaExceeded,
    RateLimited,
    StartupError,
    Unavailable,
)


def _subclasses(base: type[ApiError]) -> list[type[ApiError]]:
    return [found for each in base.__subclasses__() for found in (each, *_subclasses(each))]


@pytest.mark.parametrize("kind", _subclasses(ApiError), ids=lambda kind: kind.__name__)
def test_every_class_fixes_status_and_type(kind: type[ApiError]) -> None:
    assert 400 <= kind.status < 600
    if issubclass(kind, RateLimited):
        # OpenAI's own names.
        assert kind.type in ("rate_limit_error", "insufficient_quota")
    else:
        assert kind.type == ("invalid_request_error" if kind.status < 500 else "server_error")
    assert kind.__name__ in (errors.__doc__ or "")


def test_the_error_object_has_openais_four_keys() -> None:
    error = InvalidRequest("temperature is 3, but must be at most 2.", param="temperature")
    assert error.to_object() == {
        "message": "temperature is 3, but must be at most 2.",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "invalid_value",
    }


def test_a_code_can_be_given() -> None:
    assert InvalidRequest("x", code="special").to_object()["code"] == "special"


@pytest.mark.parametrize(
    ("asked", "sent"), [(0, ("1", "1000")), (7.4, ("8", "7400")), (9999, ("120", "120000"))]
)
def test_retry_after_stays_where_the_sdk_obeys_it(asked: float, sent: tuple[str, str]) -> None:
    headers = Unavailable("Full.", retry_after=asked).headers()
    assert (headers["retry-after"], headers["retry-after-ms"]) == sent
    assert "x-should-retry" not in headers


def test_a_limit_of_the_keys_own_says_milliseconds_and_a_budget_that_no_retry_mends_it() -> None:
    assert RateLimited("Slow.", retry_after=0.0421).headers() == {
        "retry-after": "1",
        "retry-after-ms": "43",
    }
    assert QuotaExceeded("Spent.", retry_after=9999).headers() == {
        "retry-after": "120",
        "retry-after-ms": "120000",
        "x-should-retry": "false",
    }


def test_headers_that_belong_to_a_status() -> None:
    assert errors.AuthenticationFailed("No.").headers() == {"www-authenticate": "Bearer"}
    assert errors.MethodNotAllowed("No.", allow="GET").headers() == {"allow": "GET"}
    assert InvalidRequest("No.").headers() == {}


def test_a_startup_error_has_a_fix() -> None:
    error = StartupError("It is dark.", fix="Light a lamp.")
    assert (str(error), error.message, error.fix) == (
        "It is dark.",
        "It is dark.",
        "Light a lamp.",
    )
