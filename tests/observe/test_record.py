"""What a record makes of the events and failures of a request."""

import pytest

from qwen_openai.core import (
    Admitted,
    Event,
    Finish,
    Reasoning,
    Routed,
    Started,
    Text,
    ToolCallArguments,
    ToolCallStart,
    Usage,
)
from qwen_openai.errors import (
    ApiError,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    RateLimited,
    UpstreamFailed,
)
from qwen_openai.observe.record import Outcome, Record


def _watched(*events: Event, n: int = 1) -> Record:
    record = Record(n=n)
    for event in events:
        record.watch(event)
    return record


def test_the_way_of_a_request() -> None:
    record = _watched(
        Admitted(0, 0.5), Routed(0, "a", 1), Routed(0, "b", 2), Started(0, 7), Text(0, "x")
    )
    assert record.admitted
    assert record.queued == 0.5
    assert (record.upstream, record.attempts) == ("b", 2)
    assert (record.tried, record.failed) == (["a", "b"], ["a"])
    assert record.first_token is not None


def test_choices_that_go_different_ways() -> None:
    record = _watched(Routed(0, "a", 1), Routed(1, "b", 1), Routed(1, "a", 2), n=2)
    assert record.tried == ["a", "b", "a"]
    assert record.failed == ["b"]
    assert record.attempts == 2


@pytest.mark.parametrize(
    "event", [Text(0, "x"), Reasoning(0, "x"), ToolCallStart(0, 0, "id", "name")]
)
def test_the_first_token_is_any_token(event: Event) -> None:
    record = _watched(Started(0, 7), event)
    first = record.first_token
    assert first is not None
    record.watch(event)
    assert record.first_token == first


def test_what_a_failed_request_has_cost() -> None:
    # Two prompts of two choices each: a prompt counts once.
    started = [Started(0, 10, 4), Started(1, 10, 4), Started(2, 20), Started(3, 20)]
    record = _watched(*started, Text(0, "a", 3), Reasoning(3, "b"), n=2)
    record.watch(ToolCallArguments(0, 0, "{}"))
    record.watch(Finish(0, "stop", 3))
    record.settle()
    assert record.usage == Usage(30, 4, 4)


def test_usage_that_was_noted_stays() -> None:
    record = _watched(Started(0, 10))
    record.usage = Usage(10, 5)
    record.settle()
    assert record.usage == Usage(10, 5)


def test_what_never_started_has_cost_nothing() -> None:
    record = _watched(Admitted(0, 1.0))
    record.settle()
    assert record.usage is None


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InvalidRequest("x"), "refused"),
        (RateLimited("x"), "refused"),
        (Overloaded("x"), "refused"),
        (EngineUnavailable("x"), "error"),
        (DeadlineExceeded("x"), "error"),
        (EngineFailed("x"), "error"),
        (UpstreamFailed("x"), "error"),
    ],
)
def test_failures(error: ApiError, outcome: Outcome) -> None:
    record = Record()
    record.fail(error)
    assert (record.outcome, record.error) == (outcome, error.code)


def test_a_code_of_an_upstream_is_no_type() -> None:
    record = Record()
    record.fail(InvalidRequest("x", code="whatever_it_said"))
    assert (record.error, record.error_type) == ("whatever_it_said", "invalid_value")


def test_a_client_that_leaves_has_aborted_whatever_it_was_told() -> None:
    record = Record()
    record.fail(EngineUnavailable("shutting down"))
    record.abort()
    assert (record.outcome, record.error, record.error_type) == ("aborted", "", "")
