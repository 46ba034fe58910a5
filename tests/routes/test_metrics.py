"""GET /metrics on a live server: what it shows, to whom, and how many series there can be."""

import asyncio
import json
import random
import re
from collections.abc import AsyncGenerator, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from qwen_openai.core import Event, Job, Routed
from qwen_openai.engines.fake import FakeEngine
from tests.live import Live, call, live, threaded

_ROOT = Path(__file__).parents[2]
_RULES = _ROOT / "configs" / "prometheus-rules.yml"
_DASHBOARD = _ROOT / "configs" / "grafana.json"
_MASTER = "sk-master-0123456789"
_NAME = re.compile(r"\b(?:qwen_openai|gen_ai|process)_\w+")
# The labels of the metrics, and not metrics.
_LABELS = {"gen_ai_request_model", "gen_ai_token_type", "gen_ai_operation_name"}


class Routing(FakeEngine):
    """Plays a pool: the first upstream fails."""

    async def _generate(self, job: Job) -> AsyncGenerator[Event, None]:
        yield Routed(job.choice, "first", 1)
        yield Routed(job.choice, "second", 2)
        async for event in super().generate(job):
            yield event

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        return self._generate(job)


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(Routing, api_key=_MASTER) as running:
        yield running


def scrape(server: Live, key: str = _MASTER) -> str:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/metrics", headers={"authorization": f"Bearer {key}"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return text


def series(text: str) -> int:
    return sum(1 for line in text.splitlines() if not line.startswith("#"))


def _ask(server: Live, **more: object) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi you"}], **more}
    headers = {"authorization": f"Bearer {_MASTER}"}
    call(server.port, "POST", "/v1/chat/completions", body, headers)


def test_a_scrape_is_what_prometheus_reads(server: Live) -> None:
    _ask(server)
    _ask(server, stream=True)
    text = scrape(server)
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["qwen_openai_slots", (("model", "fake"),)] == 4
    assert samples["qwen_openai_in_flight_requests", ()] == 1
    assert samples["qwen_openai_upstream_failures_total", (("upstream", "first"),)] >= 2
    assert samples["process_resident_memory_bytes", ()] > 0
    assert samples["qwen_openai_ready", ()] == 1


@pytest.mark.parametrize(("setting", "status"), [("open", 200), ("off", 404), ("master", 401)])
async def test_who_may_read_them(setting: str, status: int) -> None:
    async with live(FakeEngine(), api_key=_MASTER, metrics=setting) as server:

        def status_of(headers: dict[str, str]) -> int:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("GET", "/metrics", headers=headers)
            code = connection.getresponse().status
            connection.close()
            return code

        if setting == "off":
            headers = {"authorization": f"Bearer {_MASTER}"}
            assert await asyncio.to_thread(status_of, headers) == status
        else:
            assert await asyncio.to_thread(status_of, {}) == status


def _expressions() -> Iterator[str]:
    rules = yaml.safe_load(_RULES.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert {"record", "alert"} & set(rule)
            yield rule["expr"]
    dashboard = json.loads(_DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        if isinstance(variable["query"], dict):
            yield variable["query"]["query"]


def test_rules_and_dashboard_name_what_there_is(server: Live) -> None:
    _ask(server, stream=True)
    text = scrape(server)
    # Families without a series, such as those of upstreams here, are told all the same.
    known = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    known |= {line.partition("{")[0].partition(" ")[0] for line in text.splitlines()}
    named = {name for each in _expressions() for name in _NAME.findall(each)} - _LABELS
    assert len(named) >= 20
    assert named <= known
    labels = set(re.findall(r'(\w+)="', text)) | {"state", "job", "instance"}
    for expression in _expressions():
        assert expression.count("(") == expression.count(")")
        assert expression.count("{") == expression.count("}")
        for found in re.findall(r"[{,](\w+)=~?\"", expression):
            assert found in labels, expression


def test_panels_do_not_lie_on_one_another() -> None:
    panels = json.loads(_DASHBOARD.read_text(encoding="utf-8"))["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert max(x for x, _ in taken) == 23
    assert len({panel["id"] for panel in panels}) == len(panels)


async def test_no_client_can_make_series(soak: bool) -> None:
    """100,000 wrong models, keys, paths and methods, past the network: straight into the app."""
    made_up = random.Random(51)
    async with live(FakeEngine(), api_key=_MASTER) as server:
        app = server.server.config.loaded_app

        async def one(kind: int) -> int:
            word = f"w{made_up.getrandbits(64):x}"
            path = f"/{word}" if kind == 0 else "/v1/chat/completions"
            secret = word if kind == 1 else _MASTER
            method = word.upper() if kind == 2 else "POST"
            body = b'{"model":"%s","messages":[{"role":"user","content":"x"}]}' % word.encode()
            return await _straight(app, method, path, secret, body)

        for kind in range(4):
            assert await one(kind) in (401, 404, 405)
        before = series(await asyncio.to_thread(scrape, server))
        for number in range(100_000 if soak else 4_000):
            await one(number % 4)
        after = await asyncio.to_thread(scrape, server)
        # The scrape itself is what is new.
        assert series(after) - before <= 1
        assert len(after) < 64 * 1024


async def _straight(app: object, method: str, path: str, secret: str, body: bytes) -> int:
    assert callable(app)
    statuses: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            assert isinstance(message["status"], int)
            statuses.append(message["status"])

    headers = [
        (b"authorization", f"Bearer {secret}".encode()),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "http_version": "1.1",
    }
    await app(scope, receive, send)
    return statuses[0]
