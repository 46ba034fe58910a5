"""Bad input for a model that takes tools, on a live server that is the same afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import Live, call, threaded
from tests.wire import cases, tool_cases
from tests.wire.cases import Case
from tests.wire.qwen1 import Qwen1Engine
from tests.wire.test_threats import check_error, normal

# What a model without tools refuses as a whole is judged in detail here.
_ABOUT_TOOLS = (b'"tools"', b'"tool_calls"', b'"role": "tool"', b'"functions"')
_GENERAL = [case for case in cases.ALL if not any(word in case.body for word in _ABOUT_TOOLS)]
_CASES = [*_GENERAL, *tool_cases.ALL]


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(Qwen1Engine) as running:
        yield running


@pytest.mark.parametrize("case", _CASES, ids=[case.id for case in _CASES])
def test_bad_input(server: Live, case: Case, shared: Path) -> None:
    before = normal(server, "fake")
    body = case.body.replace(b"MODEL", b"fake")
    answer = call(server.port, case.method, case.path, body or None, case.headers)
    assert answer.status in case.status, (answer.status, answer.body[:400])
    if answer.status >= 400 and case.method != "HEAD":
        check_error(case, answer.json())
    assert normal(server, "fake") == before
