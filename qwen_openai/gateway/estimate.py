"""How many tokens a job may take, reckoned before anything is tokenized: what limits reserve.

Pure. On the safe side for a prompt: ASCII text has about four characters a token and more where it
is code, Chinese about one and a half; here a token is three ASCII characters, or one other.
"""

from collections.abc import Iterable

from qwen_openai.core import Job

_PER_MESSAGE = 5
_PER_JOB = 16


def tokens_of(job: Job, *, default_max_tokens: int) -> int:
    """Return prompt and longest answer of one job, in tokens."""
    most = job.sampling.max_tokens or default_max_tokens
    reckoned = prompt_tokens_of(job) + most
    return reckoned if job.max_total is None else min(reckoned, job.max_total)


def prompt_tokens_of(job: Job) -> int:
    """Return what the prompt is reckoned at, in tokens."""
    if job.prompt is not None and not isinstance(job.prompt.text, str):
        return len(job.prompt.text)
    return _PER_JOB + _PER_MESSAGE * len(job.messages) + sum(map(_tokens, _texts(job)))


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
        yield "" if tool.parameters is None else str(tool.parameters)


def _tokens(text: str) -> int:
    if text.isascii():
        return len(text) // 3 + 1
    extra = len(text.encode("utf-8", "surrogatepass")) - len(text)
    # A character of n bytes adds n - 1 here: two for Chinese, which is one and a half of a token.
    return len(text) // 3 + extra // 2 + 1
