"""The judge itself: that it is there, and that it finds faults."""

import os

import pytest

from tests.spec import FILE, check, folder, present


@pytest.fixture(autouse=True)
def _specification() -> None:
    if not present():
        reason = f"no {FILE} in {folder()}: answers are not judged by the specification"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def test_a_valid_body_passes() -> None:
    check("Model", {"id": "x", "object": "model", "created": 1, "owned_by": "qwen"})


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        ("Model", {"id": "x", "object": "model", "created": "1", "owned_by": "qwen"}),
        ("Model", {"id": "x", "object": "model", "created": 1}),
        ("ErrorResponse", {"error": {"message": "x", "type": "y", "param": None}}),
        ("ErrorResponse", {"detail": "x"}),
        ("CreateChatCompletionStreamResponse", {"id": "x", "choices": [{"index": 0}]}),
        (
            "CreateChatCompletionResponse",
            {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{}]},
        ),
    ],
)
def test_a_wrong_body_is_found(schema: str, instance: object) -> None:
    with pytest.raises(AssertionError, match="not a valid"):
        check(schema, instance)


def test_nullable_is_understood() -> None:
    choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}
    chunk = {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": None,
    }
    check("CreateChatCompletionStreamResponse", chunk)
