"""GET /metrics, in Prometheus' text format: what `observe.metrics` has added up, and how things
stand in the gateway at this moment."""

import asyncio
from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from starlette.types import Receive, Scope, Send

from qwen_openai import __version__
from qwen_openai.routes.gateway import Gateway, Served
from qwen_openai.routes.respond import send_text

_STATES = ("unknown", "up", "probing", "open")


class ReadMetrics:
    """The endpoint, as an ASGI application. Who may read it is decided in `auth`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What the loop changes is read in the loop; putting it into text takes milliseconds.
        now = list(_now(self._gateway))
        text = await asyncio.to_thread(self._gateway.metrics.text, now)
        await send_text(send, text, CONTENT_TYPE_PLAIN_0_0_4)


def _now(gateway: Gateway) -> Iterable[Metric]:
    yield _gauge(
        "in_flight_requests", "Requests that are being answered.", gateway.metrics.in_flight
    )
    yield _gauge("connections", "Connections that are open.", len(gateway.connections))
    ready = gateway.health().ready
    yield _gauge("ready", "Whether a request sent now would be taken.", ready)
    yield _gauge(
        "event_loop_lag_seconds",
        "The longest that the event loop was kept from its work, in the last half to whole minute.",
        gateway.lag.worst,
    )
    build = GaugeMetricFamily("qwen_openai_build_info", "The version.", labels=("version",))
    build.add_metric((__version__,), 1)
    yield build
    yield from _queues(gateway)
    yield from _upstreams(gateway)
    yield from _ledger(gateway)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"qwen_openai_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"qwen_openai_{name}", text, value=value)


def _queues(gateway: Gateway) -> Iterable[Metric]:
    """Each model once, under the first of its names."""
    named: dict[Served, str] = {}
    for name, served in gateway.models.items():
        named.setdefault(served, name)
    waiting, used, slots = (
        GaugeMetricFamily(f"qwen_openai_{name}", text, labels=("model",))
        for name, text in (
            ("queue_length", "Answers that wait for a slot."),
            ("slots_used", "Slots that are taken."),
            ("slots", "Answers that can be made at once."),
        )
    )
    for served, name in named.items():
        admission = served.service.admission
        waiting.add_metric((name,), admission.waiting)
        used.add_metric((name,), admission.running)
        slots.add_metric((name,), admission.slots)
    return waiting, used, slots


def _upstreams(gateway: Gateway) -> Iterable[Metric]:
    state = GaugeMetricFamily(
        "qwen_openai_upstream_state",
        "1 for the state that an upstream is in: open means that it is left alone for a while.",
        labels=("upstream", "state"),
    )
    in_flight = GaugeMetricFamily(
        "qwen_openai_upstream_in_flight", "Answers an upstream is making.", labels=("upstream",)
    )
    for upstream in gateway.pool.states():
        for each in _STATES:
            state.add_metric((upstream.name, each), upstream.state == each)
        in_flight.add_metric((upstream.name,), upstream.in_flight)
    return state, in_flight


def _ledger(gateway: Gateway) -> Iterable[Metric]:
    books, ledger = gateway.bookkeeper, gateway.ledger
    return (
        _counter("ledger_written", "Records that are in the database.", books.written),
        _counter("ledger_dropped", "Records that found no room in memory.", ledger.dropped),
        _counter(
            "ledger_failures",
            "Times that the database could not be used.",
            books.failures,
        ),
        _gauge("ledger_waiting", "Records on their way to the database.", len(ledger)),
    )
