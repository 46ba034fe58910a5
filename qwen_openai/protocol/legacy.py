"""The body of POST /, the tutorial's own route: prompt, history and three settings, all strict.

Knows the wire only; `adapter.legacy` makes a Job of it. As in the tutorial, null, 0 and absent all
mean the default for max_length, top_p and temperature, and null or absent an empty history.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError
from pydantic.json_schema import SkipJsonSchema

from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.body import parse_object
from qwen_openai.protocol.explain import find_fault
from qwen_openai.protocol.fields import header_names, refuse_forbidden

# JSON has no tuples: a pair is a list of two, whose strings are still checked strictly.
Pair = Annotated[tuple[str, str], Strict(False)]


class LegacyRequest(BaseModel):
    """A valid request; None is "the default". `ignored` names what came but has no effect."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")

    prompt: str
    history: Annotated[list[Pair], Field(fail_fast=True)] = []
    max_length: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    temperature: float | None = Field(None, gt=0, le=2)
    ignored: SkipJsonSchema[tuple[str, ...]] = ()


ACCEPTS = {
    "prompt": "a string",
    "history": "a list of [query, answer] pairs",
    "history[]": "a list of two strings, [query, answer]",
    "history[][]": "a string",
    "max_length": "an integer of at least 1",
    "top_p": "a number above 0 and at most 1",
    "temperature": "a number above 0 and at most 2",
}

_DEFAULTED = ("max_length", "top_p", "temperature")
_KNOWN = frozenset(("prompt", "history", *_DEFAULTED))


def parse_legacy(raw: bytes, *, max_pairs: int = 1024) -> LegacyRequest:
    """Return the request in a body; more than `max_pairs` pairs of history are refused before any
    is looked at. Raises InvalidJson and InvalidRequest, with the `param` at fault."""
    body = parse_object(raw, bulk="history")
    for name in _DEFAULTED:
        value = body.get(name)
        if value == 0 and not isinstance(value, bool):
            del body[name]
    history = body.get("history")
    if history is None:
        body.pop("history", None)
    elif isinstance(history, list) and len(history) > max_pairs:
        raise InvalidRequest(
            f"history holds {len(history)} pairs; at most {max_pairs} are taken.", param="history"
        )
    ignored = refuse_forbidden([name for name in body if name not in _KNOWN], body)
    body["ignored"] = header_names(ignored)
    try:
        return LegacyRequest.model_validate(body)
    except ValidationError as error:
        raise find_fault(error, body, ACCEPTS).to_error(ACCEPTS) from None
