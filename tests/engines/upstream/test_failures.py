"""What of an upstream's own words reaches callers, and what becomes of words that do not come."""

import asyncio
import json

import pytest

from qwen_openai.engines.upstream.deadlines import Timeouts
from qwen_openai.engines.upstream.failures import Reporter
from qwen_openai.errors import InvalidRequest, UpstreamTimeout
from tests.engines.upstream.scripted import a_job, answered

SHORT = Timeouts(connect=1, first_token=0.1, token=0.1, total=0.3)
KEY = "abcdefghij0123456789"
REPORT = Reporter("east", KEY, "gpu-7.corp.example")


def said(message: str, **more: object) -> InvalidRequest:
    body = json.dumps({"error": {"message": message, **more}}).encode()
    error = REPORT.of_status(400, {}, body)
    assert isinstance(error, InvalidRequest)
    return error


@pytest.mark.parametrize(
    ("message", "secret"),
    [
        (f"the key {KEY} is bad", KEY),
        ("http://[fd00::5]:8000/" + "x" * 1970 + KEY, KEY[:6]),
        ("at fd00::5 and [::1]:8000", "fd00::5"),
        ("at [::1]:8000", "::1"),
        ("worker gpu-7.corp.example died", "gpu-7"),
        ("no adapter in /home/anna/models/q7b-secret/adapter.bin", "anna"),
        ("weights at '/mnt/vault/q7b'", "vault"),
        (r"no file C:\Users\anna\q7b.gguf", "anna"),
        ('bad regex\nTraceback (most recent call last):\n  File "x.py", line 3\nBoom', "x.py"),
        ("read file:///srv/x", "srv"),
    ],
)
def test_what_is_cut_out(message: str, secret: str) -> None:
    assert secret not in said(message).message


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens must be at least 1, got 0.",
        "a tool's name may have a-z, 0-9 and / or _; std::string is none",
        "Use /v1/completions or /v1/chat/completions instead.",
        "ratio 1/2, 3:4, and/or; temperature: 2.5 > 2",
    ],
)
def test_what_stays(message: str) -> None:
    assert said(message).message == message


def test_a_key_is_no_code_and_no_param() -> None:
    error = said("no", code=KEY, param=KEY)
    assert (error.code, error.param) == (said("no").code, None)
    assert (said("no", code="bad_top_k", param="top_k").param) == "top_k"
    assert (said("no", code="bad_top_k", param="top_k").code) == "bad_top_k"


@pytest.mark.parametrize("watched", [True, False])
async def test_a_refusal_whose_words_never_come_ends_in_time(watched: bool) -> None:
    head = b"HTTP/1.1 400 Bad\r\ncontent-length: 99\r\n\r\n"
    async with asyncio.timeout(SHORT.first_token * 15):
        with pytest.raises(UpstreamTimeout):
            await answered([head, asyncio.Event()], a_job(watched=watched), SHORT)


async def test_a_refusal_that_breaks_off_is_a_refusal() -> None:
    head = b"HTTP/1.1 400 Bad\r\ncontent-length: 99\r\n\r\n{"
    with pytest.raises(InvalidRequest):
        await answered([head, None])
