"""Log probabilities of another server's answer, in either of OpenAI's two shapes. Pure.

What is no number, or no list, raises TypeError, ValueError or KeyError: `answer` says what of.
"""

import re

from qwen_openai.core import TokenLogprob

_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")
_BYTES = "bytes:"


def chat_logprobs(given: object) -> tuple[TokenLogprob, ...]:
    """Return the entries of a chat choice's `logprobs`."""
    content = given.get("content") if type(given) is dict else None
    if not content:
        return ()
    return tuple(
        _entry(each, tuple(_entry(top) for top in _objects(each.get("top_logprobs"))))
        for each in _objects(content)
    )


def completion_logprobs(given: object, count: int) -> tuple[TokenLogprob, ...]:
    """Return the entries of a completion choice's `logprobs`, at most ``count`` alternatives of
    each."""
    if type(given) is not dict:
        return ()
    if given.get("content"):  # llama.cpp sends the shape of chat here too
        return chat_logprobs(given)
    tokens, values = given.get("tokens") or [], given.get("token_logprobs") or []
    tops = given.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        _token(token, value, tuple(_likeliest(top, count)))
        for token, value, top in zip(tokens, values, tops, strict=True)
    )


def _likeliest(top: object, count: int) -> list[TokenLogprob]:
    if type(top) is not dict:
        return []
    ranked = sorted(top.items(), key=lambda pair: _number(pair[1]), reverse=True)
    return [_token(text, value) for text, value in ranked[:count]]


def _objects(values: object) -> list[dict[str, object]]:
    """Return a list of objects as one; null is none."""
    if values is None:
        return []
    if type(values) is not list or not all(type(each) is dict for each in values):
        raise TypeError
    return values


def _entry(given: dict[str, object], top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    text, raw = given["token"], given.get("bytes")
    if type(text) is not str:
        raise TypeError
    if type(raw) is list:
        return TokenLogprob(text, bytes(raw), _number(given["logprob"]), top)
    return _token(text, given["logprob"], top)


def _token(text: object, value: object, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    if type(text) is not str:
        raise TypeError
    raw = text.encode("utf-8", "replace")
    if text.startswith(_BYTES):
        raw = bytes(int(each, 16) for each in _ESCAPED.findall(text))
        text = raw.decode("utf-8", "replace")
    return TokenLogprob(text, raw, _number(value), top)


def _number(value: object) -> float:
    if value is None:  # the first token of an echoed prompt has none
        return float("-inf")
    if type(value) is float or type(value) is int:
        return float(value)
    raise TypeError
