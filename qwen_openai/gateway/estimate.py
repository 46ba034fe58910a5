"""How many tokens a request may take, reckoned before anything is tokenized: what limits reserve.

Pure. Weights are fitted to the tokenizer of Qwen2.5, on the safe side (figures in docs/limits.md):
it has a token for each digit, and words of about six letters for one.
"""

from collections.abc import Iterable, Sequence

import orjson

from qwen_openai.core import Job

_PER_MESSAGE = 5
_PER_JOB = 28
_PER_TOOL = 20

# Of a longer text only parts are looked at, so that no text holds the event loop up.
_LOOKED_AT = 64 * 1024
_PARTS = 16

_DIGITS = b"0123456789"
_SIGNS = b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\n\r\t"
_TWO = bytes(range(0xC2, 0xE0))
_FOUR = bytes(range(0xF0, 0xF5))
_PER_DIGIT = 1.0
_PER_SIGN = 0.65
_PER_BLANK = 0.05
_PER_SEPARATOR = 0.45
_PER_LETTER = 0.28
_PER_TWO_BYTES = 0.5
_PER_THREE_BYTES = 0.85
_PER_FOUR_BYTES = 2.0


def tokens_of(jobs: Sequence[Job], *, default_max_tokens: int) -> int:
    """Return all prompts and the longest answers of one request's jobs, in tokens. A prompt that
    has several answers is read, and counted, once."""
    return sum(_tokens_of(job, default_max_tokens) for job in jobs)


def prompt_tokens_of(jobs: Sequence[Job]) -> int:
    """Return what the prompts of one request are reckoned at, in tokens."""
    return sum(_prompt_of(job) for job in jobs if _is_first(job))


def text_tokens(text: str) -> int:
    """Return about how many tokens a text has, rather a few too many than too few."""
    length = len(text)
    if length <= _LOOKED_AT:
        return int(_weight(text)) + 1
    step, part = length // _PARTS, _LOOKED_AT // _PARTS
    looked = sum(_weight(text[start : start + part]) for start in range(0, step * _PARTS, step))
    return int(looked * length / _LOOKED_AT) + 1


def _tokens_of(job: Job, default_max_tokens: int) -> int:
    most = job.sampling.max_tokens or default_max_tokens
    reckoned = most + (_prompt_of(job) if _is_first(job) else 0)
    return reckoned if job.max_total is None else min(reckoned, job.max_total)


def _is_first(job: Job) -> bool:
    """Whether no other job of the request has this one's prompt before it."""
    return job.choice % job.n == 0


def _prompt_of(job: Job) -> int:
    if job.prompt is not None and not isinstance(job.prompt.text, str):
        return len(job.prompt.text)
    frame = _PER_JOB + _PER_MESSAGE * len(job.messages) + _PER_TOOL * len(job.tools)
    return frame + sum(text_tokens(text) for text in _texts(job) if text)


def _texts(job: Job) -> Iterable[str]:
    if job.prompt is not None and isinstance(job.prompt.text, str):
        yield job.prompt.text
        yield job.prompt.suffix or ""
    for message in job.messages:
        yield message.content
        yield message.reasoning or ""
        for call in message.tool_calls:
            yield call.name
            yield call.arguments
    for tool in job.tools:
        yield tool.name
        yield tool.description
        if tool.parameters is not None:
            yield orjson.dumps(tool.parameters).decode()


def _weight(text: str) -> float:
    data = text.encode("utf-8", "surrogatepass")
    size = len(data)
    rest = len(data.translate(None, _DIGITS))
    digits = size - rest
    signs = size - len(data.translate(None, _SIGNS))
    blanks = data.count(b" ")
    weight = _PER_DIGIT * digits + _PER_SIGN * signs + _PER_BLANK * blanks
    # Between numbers a blank or a sign is a token of its own.
    weight += _PER_SEPARATOR * min(digits, signs + blanks)
    known = digits + signs + blanks
    if text.isascii():
        return weight + _PER_LETTER * (size - known)
    two = size - len(data.translate(None, _TWO))
    four = size - len(data.translate(None, _FOUR))
    three = (size - len(text) - two - 3 * four) // 2
    letters = len(text) - known - two - three - four
    beyond = _PER_TWO_BYTES * two + _PER_THREE_BYTES * three + _PER_FOUR_BYTES * four
    return weight + beyond + _PER_LETTER * letters
