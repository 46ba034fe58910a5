"""What is added up of requests, in the form that Prometheus reads."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from qwen_openai.core import Usage
from qwen_openai.errors import EngineFailed, RateLimited, UpstreamFailed
from qwen_openai.observe.metrics import Metrics, error_types
from qwen_openai.observe.record import Record
from qwen_openai.observe.tally import Counts, Spread

_CHAT = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "qwen"}


def scraped(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scraped(metrics).get((name, frozenset(labels.items())))


def _answered(**more: object) -> Record:
    record = Record(route="/v1/chat/completions", model="qwen", streams=True, status=200)
    record.admitted, record.queued = True, 0.25
    record.first_token, record.duration = 0.5, 1.5
    record.usage = Usage(100, 11, 40, 3)
    for name, given_ in more.items():
        setattr(record, name, given_)
    return record


def test_an_answer() -> None:
    metrics = Metrics()
    metrics.begin()
    assert metrics.in_flight == 1
    metrics.observe(_answered())
    assert metrics.in_flight == 0
    first, per_token = (
        f"gen_ai_server_time_{each}_token_seconds" for each in ("to_first", "per_output")
    )
    assert value(metrics, f"{first}_sum", **_CHAT) == 0.5
    assert value(metrics, f"{per_token}_sum", **_CHAT) == pytest.approx(0.1)
    duration = "gen_ai_server_request_duration_seconds"
    assert value(metrics, f"{duration}_sum", **_CHAT, error_type="") == 1.5
    assert value(metrics, f"{duration}_bucket", **_CHAT, error_type="", le="1.28") == 0
    assert value(metrics, f"{duration}_bucket", **_CHAT, error_type="", le="2.56") == 1
    assert value(metrics, f"{duration}_bucket", **_CHAT, error_type="", le="+Inf") == 1
    for kind, tokens in (("input", 100), ("output", 11), ("cached", 40), ("reasoning", 3)):
        name = "gen_ai_client_token_usage_sum"
        assert value(metrics, name, **_CHAT, gen_ai_token_type=kind) == tokens
    assert value(metrics, "qwen_openai_queue_seconds_sum", model="qwen") == 0.25
    labels = {"route": "/v1/chat/completions", "model": "qwen", "status": "2xx", "outcome": "ok"}
    assert value(metrics, "qwen_openai_requests_total", **labels) == 1


def test_a_plain_answer_has_no_first_token() -> None:
    metrics = Metrics()
    metrics.observe(_answered(streams=False))
    assert not any("first_token" in name for name, _ in scraped(metrics))


def test_a_key_that_is_kept_out() -> None:
    metrics = Metrics()
    record = Record(key="k1", status=429)
    record.fail(RateLimited("x"))
    metrics.observe(record)
    rejections = "qwen_openai_key_rejections_total"
    assert value(metrics, rejections, reason="rate_limit_exceeded") == 1
    assert value(metrics, rejections, reason="invalid_api_key") == 0
    errors = "qwen_openai_errors_total"
    assert value(metrics, errors, model="", error_type="rate_limit_exceeded") == 1


def test_upstreams_that_fail() -> None:
    metrics = Metrics()
    metrics.observe(_answered(tried=["a", "b"], failed=["a"], upstream="b"))
    broken = _answered(tried=["b"], upstream="b")
    broken.fail(UpstreamFailed("x"))
    metrics.observe(broken)
    attempts, failures = (f"qwen_openai_upstream_{each}_total" for each in ("attempts", "failures"))
    assert value(metrics, attempts, upstream="a") == 1
    assert value(metrics, attempts, upstream="b") == 2
    assert value(metrics, failures, upstream="a") == 1
    assert value(metrics, failures, upstream="b") == 1


def test_a_client_that_leaves() -> None:
    metrics = Metrics()
    metrics.observe(_answered(outcome="aborted", status=499))
    name = "gen_ai_server_request_duration_seconds_count"
    assert value(metrics, name, **_CHAT, error_type="aborted") == 1
    assert not any("per_output" in name for name, _ in scraped(metrics))


def test_the_types_of_errors_are_those_of_the_tree() -> None:
    assert {"upstream_error", "overloaded", "invalid_api_key"} <= error_types()


def test_names_are_bounded_though_upstreams_make_them_up() -> None:
    metrics = Metrics()
    made_up = random.Random(6)
    for _ in range(300):
        name = f"model-{made_up.getrandbits(64)}"
        metrics.observe(_answered(model=name, tried=[name], upstream=name))
    seen = scraped(metrics)
    models = {dict(labels).get("model", "") for _, labels in seen}
    assert len(models) <= 202
    assert "other" in models


def test_an_error_that_nobody_foresaw_has_its_class() -> None:
    metrics = Metrics()
    record = _answered(status=500)
    record.fail(EngineFailed("x", code="made_up_by_somebody"))
    metrics.observe(record)
    errors = "qwen_openai_errors_total"
    assert value(metrics, errors, model="qwen", error_type="engine_error") == 1


@given(st.lists(st.floats(-10, 10, allow_nan=False), max_size=50))
def test_a_spread_counts_like_the_definition(values: list[float]) -> None:
    bounds = (0.25, 0.5, 1.0, 3.0)
    spread = Spread("s", "text", ("a",), bounds)
    for each in values:
        spread.add(("x",), each)
    family = spread.family()
    got = {sample.labels["le"]: sample.value for sample in family.samples if "le" in sample.labels}
    if not values:
        assert got == {}
        return
    for bound in bounds:
        assert got[str(bound)] == sum(each <= bound for each in values)
    assert got["+Inf"] == len(values)
    sums = [sample.value for sample in family.samples if sample.name == "s_sum"]
    assert sums == [pytest.approx(sum(values))]


def test_counts_start_at_nought_where_all_is_known() -> None:
    counts = Counts("c", "text", ("a",), [("x",)])
    counts.add(("y",), 2.5)
    assert {each.labels["a"]: each.value for each in counts.family().samples} == {"x": 0, "y": 2.5}
