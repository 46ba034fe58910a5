"""OpenAI's own specification as a judge: `check(schema, instance)` for every body the tests see.

The specification is data beside the repository. Without it `check` judges nothing, and the tests
in tests/responses/test_spec.py say so: skipped on a plain clone, failed under CI.
"""

import functools
import json
import os
from pathlib import Path

import jsonschema_rs

FILE = "spec/openai-openapi-2.3.0-chat.json"


def folder() -> Path:
    """Where golden data and specifications are, present or not."""
    root = Path(__file__).parent.parent
    return (root / os.environ.get("QWEN_OPENAI_SHARED", "../shared")).resolve()


def present() -> bool:
    """Whether the specification is there to judge."""
    return (folder() / FILE).is_file()


def check(schema: str, instance: object) -> None:
    """Fail unless `instance`, sent over the wire as JSON, is a `schema` of the specification:
    CreateChatCompletionResponse, CreateChatCompletionStreamResponse, ErrorResponse,
    ListModelsResponse, Model and so on."""
    if not present():
        return
    wire = json.loads(json.dumps(instance))
    faults = [
        f"{'/'.join(map(str, error.instance_path)) or '(root)'}: {error.message}"
        for error in _validator(schema).iter_errors(wire)
    ]
    assert not faults, f"not a valid {schema}: " + "; ".join(faults)


@functools.cache
def _document() -> dict[str, object]:
    loaded = _nullable(json.loads((folder() / FILE).read_text(encoding="utf-8")))
    assert isinstance(loaded, dict)
    return loaded


@functools.cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    document = _document()
    assert schema in document["components"]["schemas"], schema  # type: ignore[index]  # JSON
    return jsonschema_rs.Draft202012Validator(
        {"components": document["components"], "$ref": f"#/components/schemas/{schema}"}
    )


def _nullable(node: object) -> object:
    """Turn OpenAPI 3.0's `nullable: true`, which the document still uses and JSON Schema does not
    know, into a union with null."""
    if isinstance(node, list):
        return [_nullable(each) for each in node]
    if not isinstance(node, dict):
        return node
    turned = {key: _nullable(value) for key, value in node.items() if key != "nullable"}
    if node.get("nullable") is True:
        return {"anyOf": [turned, {"type": "null"}]}
    return turned
