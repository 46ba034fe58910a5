"""The bodies of POST /tokenize and /detokenize, as vLLM takes them, checked strictly.

Knows the wire only. A conversation to count is a chat body with fewer members, and is read by
`protocol.chat`.
"""

from typing import Annotated

import orjson
from pydantic import Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.body import parse_object
from qwen_openai.protocol.chat import ChatRequest, parse_chat
from qwen_openai.protocol.completions import MAX_IDS, check_model_name
from qwen_openai.protocol.explain import find_fault
from qwen_openai.protocol.fields import header_names, refuse_forbidden, refuse_ignored
from qwen_openai.protocol.sampling import TokenId
from qwen_openai.protocol.wire import Wire

# Four characters, as English has them, for each of MAX_IDS tokens: the longest context in use.
MAX_TEXT = 4 * MAX_IDS


class TokenizeRequest(Wire):
    """A text to tokenize; the other form, a conversation, is a ChatRequest.

    No Qwen tokenizer adds tokens to a text, so `add_special_tokens` changes nothing.
    """

    model: str = ""
    prompt: Annotated[str, Field(max_length=MAX_TEXT)]
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None

    ignored: SkipJsonSchema[tuple[str, ...]] = ()


class DetokenizeRequest(Wire):
    """Token ids to make a text of."""

    model: str = ""
    tokens: Annotated[list[TokenId], Field(max_length=MAX_IDS, fail_fast=True)]

    ignored: SkipJsonSchema[tuple[str, ...]] = ()


ACCEPTS = {
    "model": "a string",
    "prompt": f"a string of at most {MAX_TEXT} characters",
    "add_special_tokens": "true or false",
    "return_token_strs": "true or false",
    "tokens": f"a list of at most {MAX_IDS} token ids",
    "tokens[]": "an integer between 0 and 2147483647",
}

_OPTIONS = ("add_special_tokens", "return_token_strs")


def parse_tokenize(
    raw: bytes, *, max_messages: int = 2048, strict: bool = False
) -> tuple[TokenizeRequest | ChatRequest, bool]:
    """Return what to tokenize, and whether the tokens' texts are wanted too.

    Raises as `parse_chat`; InvalidRequest for a body with both forms or none.
    """
    body = parse_object(raw, bulk="messages")
    check_model_name(body)
    prompt, messages = body.get("prompt"), body.get("messages")
    if (prompt is None) == (messages is None):
        raise InvalidRequest(
            "Send either prompt, a text, or messages, a conversation.", param="prompt"
        )
    if messages is None:
        text = _text(body, strict=strict)
        return text, text.return_token_strs is True
    options = {name: body.pop(name, None) for name in _OPTIONS}
    for name, value in options.items():
        if value is not None and not isinstance(value, bool):
            raise InvalidRequest(f"{name} must be true or false.", param=name)
    # Once more through the strict reader of conversations, which takes bytes.
    chat = parse_chat(orjson.dumps(body), max_messages=max_messages, strict=strict)
    return chat, options["return_token_strs"] is True


def _text(body: dict[str, object], *, strict: bool) -> TokenizeRequest:
    for name in _OPTIONS:
        if body.get(name) is None:
            body.pop(name, None)
    body["ignored"] = _ignored(body, frozenset(TokenizeRequest.model_fields), strict=strict)
    try:
        return TokenizeRequest.model_validate(body)
    except ValidationError as error:
        raise find_fault(error, body, ACCEPTS).to_error(ACCEPTS) from None


def parse_detokenize(raw: bytes, *, strict: bool = False) -> DetokenizeRequest:
    """Return the tokens in a body. Raises InvalidJson, InvalidRequest, ModelNotFound."""
    body = parse_object(raw, bulk="tokens")
    check_model_name(body)
    body["ignored"] = _ignored(body, frozenset(DetokenizeRequest.model_fields), strict=strict)
    try:
        return DetokenizeRequest.model_validate(body)
    except ValidationError as error:
        raise find_fault(error, body, ACCEPTS).to_error(ACCEPTS) from None


def _ignored(body: dict[str, object], known: frozenset[str], *, strict: bool) -> tuple[str, ...]:
    body.pop("ignored", None)
    names = header_names(refuse_forbidden([name for name in body if name not in known], body))
    if strict:
        refuse_ignored(names)
    return names
