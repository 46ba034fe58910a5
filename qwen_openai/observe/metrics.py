"""What Prometheus reads: counts and times of requests, added up as each one ends.

Names and buckets of `gen_ai_*` are those of OpenTelemetry's conventions for generative AI, in the
form that its exporter for Prometheus gives them; longer and shorter times have buckets too. No
label can be made up by a client: models and upstreams are names that the operator gave, routes are
templates, errors are classes. `routes.metrics` adds what is the gateway's to tell.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from qwen_openai.errors import ApiError
from qwen_openai.observe.record import Record
from qwen_openai.observe.tally import Counts, Spread

_DURATIONS = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    *(163.84, 327.68, 655.36),
)
_FIRST_TOKENS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0),
)
_PER_TOKEN = (
    *(0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
_TOKENS = tuple(float(4**power) for power in range(14))
_QUEUED = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/": "chat",
    "/v1/completions": "text_completion",
}
_OPERATION, _MODEL = "gen_ai_operation_name", "gen_ai_request_model"
# Why a key, or the lack of one, kept a request out.
_REJECTIONS = frozenset(
    {"invalid_api_key", "permission_denied", "rate_limit_exceeded", "insufficient_quota"}
)
# Failures that are the upstream's which had the request last.
_BLAMED = frozenset({"upstream_error", "upstream_timeout"})
# Names of models and upstreams that come and go; above this one is called `other`.
_MOST_NAMES = 200
_OTHER = "other"
_CLASSES = {0: "none", 1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}


def error_types() -> frozenset[str]:
    """Return the codes that the classes of errors have: all values of the label `error_type`."""
    return frozenset(_codes(ApiError))


def _codes(of: type[ApiError]) -> Iterator[str]:
    if of.default_code is not None:
        yield of.default_code
    for child in of.__subclasses__():
        yield from _codes(child)


class Metrics:
    """The numbers of one gateway."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._names: dict[str, str] = {"": ""}
        self._requests = Counts(
            "qwen_openai_requests",
            "Requests that have ended.",
            ("route", "model", "status", "outcome"),
        )
        self._errors = Counts(
            "qwen_openai_errors",
            "Requests that failed or were refused, by the class of the error.",
            ("model", "error_type"),
            # Where no model was known yet.
            (("", code) for code in sorted(error_types())),
        )
        self._rejections = Counts(
            "qwen_openai_key_rejections",
            "Requests that were refused for their key: none, a wrong one, its limits.",
            ("reason",),
            ((reason,) for reason in sorted(_REJECTIONS)),
        )
        self._attempts = Counts(
            "qwen_openai_upstream_attempts",
            "Answers that were asked of an upstream, each attempt counted.",
            ("upstream",),
        )
        self._failures = Counts(
            "qwen_openai_upstream_failures",
            "Attempts that an upstream failed, whether or not another one helped out.",
            ("upstream",),
        )
        self._durations = Spread(
            "gen_ai_server_request_duration_seconds",
            "Time of requests for answers, from their headers to the last byte of the answer.",
            (_OPERATION, _MODEL, "error_type"),
            _DURATIONS,
        )
        self._first_tokens = Spread(
            "gen_ai_server_time_to_first_token_seconds",
            "Time to the first token of answers that are streams.",
            (_OPERATION, _MODEL),
            _FIRST_TOKENS,
        )
        self._per_token = Spread(
            "gen_ai_server_time_per_output_token_seconds",
            "Time between tokens after the first one, the mean of each stream.",
            (_OPERATION, _MODEL),
            _PER_TOKEN,
        )
        self._tokens = Spread(
            "gen_ai_client_token_usage",
            "Tokens of each request: input, output, of the input those from a cache, of the output "
            "those of thoughts.",
            (_OPERATION, _MODEL, "gen_ai_token_type"),
            _TOKENS,
        )
        self._queued = Spread(
            "qwen_openai_queue_seconds", "Time in the queue for a slot.", ("model",), _QUEUED
        )
        self._process = ProcessCollector(registry=None)

    def begin(self) -> None:
        """A request has come."""
        self.in_flight += 1

    def observe(self, record: Record) -> None:
        """Take a finished request, which `begin` was told of."""
        self.in_flight -= 1
        model = self._name(record.model)
        status = _CLASSES.get(record.status // 100, _OTHER)
        self._requests.add((record.route, model, status, record.outcome))
        if record.error_type:
            self._errors.add((model, record.error_type))
            if record.error_type in _REJECTIONS:
                self._rejections.add((record.error_type,))
        if record.admitted:
            self._queued.add((model,), record.queued)
            self._observe_answer(record, model)
        if record.tried:
            self._observe_upstreams(record)

    def _observe_answer(self, record: Record, model: str) -> None:
        labels = (_OPERATIONS.get(record.route, _OTHER), model)
        error = record.error_type or ("aborted" if record.outcome == "aborted" else "")
        self._durations.add((*labels, error), record.duration)
        usage = record.usage
        if usage is None:
            return
        tokens = self._tokens
        tokens.add((*labels, "input"), usage.prompt_tokens)
        tokens.add((*labels, "output"), usage.completion_tokens)
        if usage.cached_tokens:
            tokens.add((*labels, "cached"), usage.cached_tokens)
        if usage.reasoning_tokens:
            tokens.add((*labels, "reasoning"), usage.reasoning_tokens)
        if record.streams and record.first_token is not None:
            self._first_tokens.add(labels, record.first_token)
            further = usage.completion_tokens - 1
            if further > 0 and record.outcome == "ok":
                self._per_token.add(labels, (record.duration - record.first_token) / further)

    def _observe_upstreams(self, record: Record) -> None:
        for upstream in record.tried:
            self._attempts.add((self._name(upstream),))
        for upstream in record.failed:
            self._failures.add((self._name(upstream),))
        if record.error_type in _BLAMED:
            self._failures.add((self._name(record.upstream),))

    def _name(self, name: str) -> str:
        known = self._names.get(name)
        if known is None:
            known = name if len(self._names) < _MOST_NAMES else _OTHER
            if known is name:
                self._names[name] = name
        return known

    def collect(self) -> Iterable[Metric]:
        """Return all that has been added up, and what the process takes."""
        for tally in (
            *(self._durations, self._first_tokens, self._per_token, self._tokens, self._queued),
            *(self._requests, self._errors, self._rejections, self._attempts, self._failures),
        ):
            yield tally.family()
        yield from self._process.collect()

    def text(self, more: Iterable[Metric] = ()) -> bytes:
        """Return everything in Prometheus' text format, ``more`` at the end. Any thread may ask."""
        return generate_latest(_All(chain(self.collect(), more)))


class _All(Collector):
    """One scrape's worth, in place of a registry that keeps it."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
