"""The matrix of completions: it says what the code does, and covers the specification."""

import json
from pathlib import Path

import orjson
import pytest

from qwen_openai.errors import InvalidRequest, ModelNotFound, UnsupportedParameter
from qwen_openai.protocol.completions import (
    ACCEPTS,
    COMPLETION_PARAMETERS,
    HONOURED,
    MAX_IDS,
    CompletionRequest,
    parse_completion,
)
from qwen_openai.protocol.parameters import PARAMETERS
from tests.spec import FILE


def parse(**body: object) -> CompletionRequest:
    return parse_completion(orjson.dumps({"model": "m", "prompt": "a", **body}))


def test_rows_and_model_agree() -> None:
    fields = set(CompletionRequest.model_fields) - {"ignored", "user"}
    assert fields == {row.name for row in HONOURED}
    assert fields <= ACCEPTS.keys()
    assert all(row.accepts for row in HONOURED)


def test_every_parameter_has_a_row(shared: Path) -> None:
    schemas = json.loads((shared / FILE).read_text())["components"]["schemas"]
    assert schemas["CreateCompletionRequest"]["properties"].keys() <= COMPLETION_PARAMETERS.keys()
    assert PARAMETERS.keys() <= COMPLETION_PARAMETERS.keys()


@pytest.mark.parametrize("name", [row.name for row in HONOURED if row.name != "prompt"])
def test_null_means_absent(name: str) -> None:
    assert parse(**{name: None}).ignored == ()


@pytest.mark.parametrize(
    "chats", [{"tool_choice": "none"}, {"function_call": "none"}, {"continue_final_message": False}]
)
def test_what_asks_for_nothing_is_taken(chats: dict[str, object]) -> None:
    assert parse(**chats).ignored == ()


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [(1, 2)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
    ],
)
def test_the_four_forms_of_a_prompt(prompt: object, prompts: list[object]) -> None:
    assert list(parse(prompt=prompt).prompts) == prompts


@pytest.mark.parametrize(
    "prompt", [None, [], [[]], {}, 1, ["a", 1], [1, "a"], [[1], 2], [-1], [1.0], [True]]
)
def test_no_other(prompt: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(prompt=prompt)
    assert refused.value.param == "prompt"


def test_a_prompt_may_be_empty_where_there_is_a_suffix() -> None:
    assert parse(prompt="", suffix="b").prompts == [""]
    with pytest.raises(InvalidRequest, match="empty"):
        parse(prompt="", suffix="")


def test_too_many_tokens_are_refused() -> None:
    assert len(parse(prompt=[1] * MAX_IDS).prompts[0]) == MAX_IDS
    with pytest.raises(InvalidRequest):
        parse(prompt=[1] * (MAX_IDS + 1))


def test_what_stands_for_a_parameter_of_chat_is_told() -> None:
    with pytest.raises(UnsupportedParameter, match="prompt"):
        parse(messages=[])
    with pytest.raises(UnsupportedParameter, match="max_tokens"):
        parse(max_completion_tokens=3)


def test_strictness_names_the_first_that_is_ignored() -> None:
    body = orjson.dumps({"model": "m", "prompt": "a", "nonsense": 1, "user": "u"})
    assert parse_completion(body).ignored == ("nonsense", "user")
    with pytest.raises(UnsupportedParameter) as refused:
        parse_completion(body, strict=True)
    assert refused.value.param == "nonsense"


def test_a_model_is_a_string() -> None:
    assert parse(model=None).model == ""
    with pytest.raises(ModelNotFound):
        parse(model=3)
