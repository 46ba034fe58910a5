"""Each failure carries what the wire needs, in OpenAI's shape."""

import pytest

from qwen_openai import errors
from qwen_openai.errors import ApiError, InvalidRequest, StartupError, Unavailable


def _subclasses(base: type[ApiError]) -> list[type[ApiError]]:
    return [found for each in base.__subclasses__() for found in (each, *_subclasses(each))]


@pytest.mark.parametrize("kind", _subclasses(ApiError), ids=lambda kind: kind.__name__)
def test_every_class_fixes_status_and_type(kind: type[ApiError]) -> None:
    assert 400 <= kind.status < 600
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


@pytest.mark.parametrize(("asked", "sent"), [(0, "1"), (7.4, "7"), (9999, "120")])
def test_retry_after_stays_where_the_sdk_obeys_it(asked: float, sent: str) -> None:
    assert Unavailable("Full.", retry_after=asked).headers() == {"retry-after": sent}


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
