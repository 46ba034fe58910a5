"""What is logged: one line a request; never a prompt, an answer, a key or a local variable."""

import subprocess
import sys
from functools import cache

import orjson
import pytest

from qwen_openai.observe.logs import printable

_SCRIPT = """
import asyncio, sys
from types import SimpleNamespace
from qwen_openai.engines.fake import FakeEngine
from qwen_openai.observe.logs import configure
from tests.live import call, live

configure(SimpleNamespace(log_level="debug", log_format=sys.argv[1]))

async def main():
    def script(job):
        crash = "crash" in job.messages[-1].content
        return [RuntimeError("canary in the text of an exception")] if crash else ["canary-answer"]
    async with live(FakeEngine(script), api_key="canary-key-012345") as server:
        headers = {"authorization": "Bearer canary-key-012345", "x-request-id": "my-id"}
        def post(text, **more):
            body = {"model": "fake", "messages": [{"role": "user", "content": text}], **more}
            path = "/v1/chat/completions"
            return asyncio.to_thread(call, server.port, "POST", path, body, headers)
        await post("canary-prompt")
        await post("canary-prompt crash")
        await post("canary-prompt", stream=True)
        await post("canary-prompt", temperature=9)
        forged = "/%1b[31m%0d%0aforged?api_key=canary-key-012345"
        await asyncio.to_thread(call, server.port, "GET", forged)

asyncio.run(main())
"""


@cache
def ran_with(form: str) -> subprocess.CompletedProcess[str]:
    """What the script has put out, in this format."""
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT, form],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_is_logged(form: str) -> None:
    ran = ran_with(form)
    assert "canary" not in ran.stdout + ran.stderr
    assert "\x1b[31m" not in ran.stderr
    assert ran.stderr.count("request_id") >= 5
    assert "RuntimeError" in ran.stderr


def test_json_lines_are_json() -> None:
    lines = [orjson.loads(line) for line in ran_with("json").stderr.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == [200, 500, 200, 400, 401]
    assert requests[0]["request_id"] == "my-id"
    assert requests[0]["completion_tokens"] == 1
    assert requests[2]["completion_tokens"] == 1


def test_printable_is_one_safe_line() -> None:
    assert printable("a\r\nb\x1b[0m") == "a\\r\\nb\\x1b[0m"
    assert printable("x" * 300) == "x" * 200
