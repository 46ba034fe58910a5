"""What an answer must look like: OpenAI's response_format and vLLM's structured_outputs.

Knows the wire and its bounds only; `grammars` says which schemas, patterns and grammars can be
enforced. Of structured_outputs exactly one kind is taken, since several cannot hold at once.
"""

from typing import Annotated, Literal

import orjson
from pydantic import Discriminator, Field, Tag

from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.protocol.fields import safe_name
from qwen_openai.protocol.messages import FunctionName
from qwen_openai.protocol.schemas import MAX_BYTES, check_schema, check_size
from qwen_openai.protocol.shown import shown
from qwen_openai.protocol.wire import Wire

MAX_CHOICES = 4096

Rule = Annotated[str, Field(max_length=MAX_BYTES)]


class TextFormat(Wire):
    """Any text: the same as no format."""

    type: Literal["text"]


class JsonObjectFormat(Wire):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(Wire):
    """A schema and its name; `strict` changes nothing, a schema is always enforced."""

    name: FunctionName
    description: str | None = None
    schema_: dict[str, object] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Wire):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


def _format_of(value: object) -> str:
    """Name the model for a format, as pydantic's tag; an unknown type is TextFormat's to refuse."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    named = {"json_object": "JsonObjectFormat", "json_schema": "JsonSchemaFormat"}
    return named.get(kind, "TextFormat") if isinstance(kind, str) else "TextFormat"


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("TextFormat")]
    | Annotated[JsonObjectFormat, Tag("JsonObjectFormat")]
    | Annotated[JsonSchemaFormat, Tag("JsonSchemaFormat")],
    Discriminator(_format_of),
]


class StructuredOutputs(Wire):
    """vLLM's way: one of a schema (an object, or its JSON text), a regular expression, a list of
    answers to choose from, a grammar (Lark or GBNF), or any JSON object."""

    json_: dict[str, object] | Rule | None = Field(None, alias="json")
    regex: Rule | None = None
    choice: (
        Annotated[list[Rule], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)] | None
    ) = None
    grammar: Rule | None = None
    json_object: bool | None = None

    @property
    def json_schema(self) -> dict[str, object] | None:
        """The schema as an object, however it came; valid once `check_formats` has passed."""
        if isinstance(self.json_, str):
            value = orjson.loads(self.json_)
            return value if isinstance(value, dict) else None
        return self.json_


# What each place accepts, after "must be"; see `explain`.
ACCEPTS = {
    "response_format": 'an object like {"type": "json_object"}',
    "response_format.type": '"text", "json_object" or "json_schema"',
    "response_format.json_schema": "an object with name and schema",
    "response_format.json_schema.name": "1 to 64 letters, digits, _ or -",
    "response_format.json_schema.description": "a string",
    "response_format.json_schema.schema": "an object, a JSON Schema",
    "response_format.json_schema.strict": "true or false",
    "structured_outputs": "an object with one of json, regex, choice, grammar and json_object",
    "structured_outputs.json": f"a JSON Schema, or its text of at most {MAX_BYTES} characters",
    "structured_outputs.regex": f"a string of at most {MAX_BYTES} characters",
    "structured_outputs.choice": f"a list of 1 to {MAX_CHOICES} strings",
    "structured_outputs.choice[]": f"a string of at most {MAX_BYTES} characters",
    "structured_outputs.grammar": f"a string of at most {MAX_BYTES} characters",
    "structured_outputs.json_object": "true or false",
}

_KINDS = ("json", "regex", "choice", "grammar", "json_object")


def refuse_members(body: dict[str, object]) -> None:
    """Refuse what structured_outputs holds beside the kinds, in a body not yet validated.

    `false` and null ask for nothing. Raises UnsupportedParameter.
    """
    given = body.get("structured_outputs")
    if not isinstance(given, dict):
        return
    for name, value in given.items():
        if name not in _KINDS and value is not None and value is not False:
            place = f"structured_outputs.{safe_name(name)}"
            raise UnsupportedParameter(f"{place} is not supported; leave it out.", param=place)


def check_formats(
    response_format: ResponseFormat | None, structured_outputs: StructuredOutputs | None
) -> None:
    """Refuse what the wire models cannot tell: formats beyond the bounds, none or several kinds.

    Raises InvalidRequest.
    """
    enforced = response_format is not None and response_format.type != "text"
    if structured_outputs is not None:
        if enforced:
            raise InvalidRequest(
                "structured_outputs and response_format exclude each other; send one of them.",
                param="structured_outputs",
            )
        _check_structured(structured_outputs)
    if isinstance(response_format, JsonSchemaFormat):
        check_schema(response_format.json_schema.schema_, "response_format.json_schema.schema")


def _check_structured(outputs: StructuredOutputs) -> None:
    given = [name for name in _KINDS if _kind(outputs, name) is not None]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise InvalidRequest(
            f"structured_outputs must hold exactly one of {', '.join(_KINDS)}, got {found}.",
            param="structured_outputs",
        )
    place = f"structured_outputs.{given[0]}"
    value = _kind(outputs, given[0])
    if given[0] != "json":
        check_schema(value, place)
    elif isinstance(value, str):
        check_size(len(value.encode()), place)
        check_schema(_parsed(value, place), place)
    else:
        check_schema(value, place)


def _kind(outputs: StructuredOutputs, name: str) -> object:
    value: object = getattr(outputs, "json_" if name == "json" else name)
    return None if value is False else value


def _parsed(text: str, place: str) -> dict[str, object]:
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"{place} must be a JSON Schema or its JSON text, which this text is not: "
            f"{error.msg} (line {error.lineno}, column {error.colno}).",
            param=place,
        ) from None
    if not isinstance(schema, dict):
        raise InvalidRequest(
            f"{place} must be the JSON text of an object, a JSON Schema, got {shown(schema)}.",
            param=place,
        )
    return schema
