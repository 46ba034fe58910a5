"""The other bodies: errors, models, the tutorial's answer."""

from datetime import datetime

import pytest

from qwen_openai.errors import ApiError, ContextLengthExceeded, InvalidRequest, Overloaded
from qwen_openai.responses.errors import error_body, legacy_error_body
from qwen_openai.responses.legacy import legacy_body
from qwen_openai.responses.models import model_list, model_object
from tests.spec import check


@pytest.mark.parametrize(
    "error", [InvalidRequest("x", param="n"), ContextLengthExceeded("x"), Overloaded("x")]
)
def test_errors(error: ApiError) -> None:
    body = error_body(error)
    check("ErrorResponse", body)
    assert body == {"error": error.to_object()}
    assert legacy_error_body(error) == {"error": error.to_object(), "status": error.status}


def test_models() -> None:
    one = model_object("Qwen/x", 5)
    check("Model", one)
    assert one == {"id": "Qwen/x", "object": "model", "created": 5, "owned_by": "qwen"}
    many = model_list(["a", "b"], 5)
    check("ListModelsResponse", many)
    assert many == {"object": "list", "data": [model_object("a", 5), model_object("b", 5)]}


def test_the_tutorials_answer() -> None:
    body = legacy_body("你好!", [("a", "b")], "你好", datetime(2026, 1, 2, 3, 4, 5, 678))
    assert body == {
        "response": "你好!",
        "history": [["a", "b"], ["你好", "你好!"]],
        "status": 200,
        "time": "2026-01-02 03:04:05",
    }
    assert list(body) == ["response", "history", "status", "time"]
