"""What an answer must look like, as a grammar: `response_format` and `structured_outputs`.

Pure text; `grammars.check` says whether a grammar can be enforced. A JSON schema is always held to,
also with `strict` false or absent: a caller who sends a schema and gets another shape is not helped
by it. Whatever is enforced is the answer's whole text, thoughts not included.
"""

from qwen_openai.core import Grammar
from qwen_openai.grammars import build, schema
from qwen_openai.protocol.chat import ChatRequest
from qwen_openai.protocol.completions import CompletionRequest
from qwen_openai.protocol.formats import JsonSchemaFormat, ResponseFormat, StructuredOutputs


def format_of(request: ChatRequest | CompletionRequest) -> Grammar | None:
    """Return what the answer must match, None where any text will do. At most one of the two asks
    for something; `protocol.formats` has seen to that."""
    if request.structured_outputs is not None:
        return Grammar(_structured(request.structured_outputs), "structured_outputs")
    return _response_format(request.response_format)


def schema_of(request: ChatRequest) -> schema.Schema | None:
    """Return the schema of an answer that must be JSON, None where it need not be."""
    given, format = request.structured_outputs, request.response_format
    if given is not None:
        return schema.ANY_OBJECT if given.json_object else given.json_schema
    if isinstance(format, JsonSchemaFormat):
        return format.json_schema.schema_
    return None if format is None or format.type == "text" else schema.ANY_OBJECT


def _response_format(format: ResponseFormat | None) -> Grammar | None:
    if format is None or format.type == "text":
        return None
    if not isinstance(format, JsonSchemaFormat):
        return Grammar(build.json_object(), "response_format")
    return Grammar(build.json_schema(format.json_schema.schema_), "response_format")


def _structured(given: StructuredOutputs) -> str:
    """Exactly one member is given; the wire model has seen to that."""
    if given.regex is not None:
        return build.regex(given.regex)
    if given.choice is not None:
        return build.choice(given.choice)
    if given.grammar is not None:
        return build.custom(given.grammar)
    wanted = given.json_schema
    if wanted is None:
        return build.json_object()
    return build.json_schema(wanted, param="structured_outputs.json")
