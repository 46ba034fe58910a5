"""Limits on a live server: headers, refusals as the openai SDK reads them, exactness in a crowd."""

import asyncio
import json
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from qwen_openai.core import Job
from qwen_openai.engines.base import Engine
from qwen_openai.engines.fake import FakeEngine, Step, reply
from qwen_openai.errors import EngineFailed
from qwen_openai.gateway.keys import Key, KeyLimits, digest_of
from tests.live import Answer, Live, call, live, until

PATH = "/v1/chat/completions"
ROOT = Path(__file__).parents[2]
_RATE = "x-ratelimit-"


def key(id: str, **limits: int) -> Key:
    return Key(id=id, name=id, limits=KeyLimits(**limits))


@asynccontextmanager
async def guarded(
    engine: Engine,
    keys: Sequence[Key],
    *,
    queue_size: int = 64,
    requests_per_minute: int | None = None,
) -> AsyncIterator[Live]:
    """A live server with these keys; each one's secret is its id."""
    async with live(
        engine, queue_size=queue_size, requests_per_minute=requests_per_minute
    ) as server:
        server.gateway.keys.replace([(digest_of(each.id.encode()), each) for each in keys])
        yield server


def client(server: Live, secret: str, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=server.base_url, api_key=secret, max_retries=retries, timeout=30
    )


MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]


async def test_every_answer_tells_what_is_left_of_the_keys_limits() -> None:
    keys = [key("sk-a", requests_per_minute=3, tokens_per_minute=10_000), key("sk-b")]
    async with guarded(FakeEngine(reply("One two")), keys) as server:
        async with client(server, "sk-a") as sdk:
            for left in (2, 1, 0):
                raw = await sdk.chat.completions.with_raw_response.create(
                    model="fake", messages=MESSAGES, max_tokens=50
                )
                told = raw.headers
                assert told[f"{_RATE}limit-requests"] == "3"
                assert told[f"{_RATE}remaining-requests"] == str(left)
                assert told[f"{_RATE}limit-tokens"] == "10000"
                assert int(told[f"{_RATE}remaining-tokens"]) >= 9800
                assert told[f"{_RATE}reset-requests"].endswith("s")
            with pytest.raises(openai.RateLimitError) as refused:
                await sdk.chat.completions.create(model="fake", messages=MESSAGES, max_tokens=50)
            error, told = refused.value, refused.value.response.headers
            assert (error.status_code, error.code) == (429, "rate_limit_exceeded")
            assert "3 requests per minute" in error.message
            assert 55 <= int(told["retry-after"]) <= 60
            assert told[f"{_RATE}remaining-requests"] == "0"
            stream = await sdk.models.list()
            assert stream.data
        async with client(server, "sk-b") as sdk:
            raw = await sdk.chat.completions.with_raw_response.create(
                model="fake", messages=MESSAGES
            )
            assert not [name for name in raw.headers if name.startswith(_RATE)]


async def test_what_was_reserved_and_not_used_is_there_for_the_next() -> None:
    """Thirty times what one request reserves, on a limit that has room for two at once."""
    async with guarded(FakeEngine(reply("Yes.")), [key("sk", tokens_per_minute=500)]) as server:
        for stream in (False, True):
            for _ in range(15):
                answer = await post(server, "sk", max_tokens=200, stream=stream)
                assert answer.status == 200, answer.body
        # The header of an answer shows it while its own reservation stands; of 30, each took 2.
        assert int((await post(server, "sk")).headers[f"{_RATE}remaining-tokens"]) <= 440


async def post(server: Live, secret: str, **body: object) -> Answer:
    given = {"model": "fake", "messages": MESSAGES, "max_tokens": 20, **body}
    headers = {"authorization": f"Bearer {secret}"}
    return await asyncio.to_thread(call, server.port, "POST", PATH, given, headers)


async def test_a_spent_budget_and_a_request_too_large_are_not_tried_again() -> None:
    keys = [key("sk-day", tokens_per_day=100), key("sk-small", tokens_per_minute=100)]
    async with guarded(FakeEngine(), keys) as server:
        async with client(server, "sk-day", retries=3) as sdk:
            with pytest.raises(openai.RateLimitError) as refused:
                await sdk.chat.completions.create(model="fake", messages=MESSAGES, max_tokens=99)
            assert refused.value.code == "insufficient_quota"
            assert refused.value.type == "insufficient_quota"
        answer = await post(server, "sk-small", max_tokens=99)
        assert (answer.status, answer.headers["x-should-retry"]) == (429, "false")
        assert "max_tokens" in answer.json()["error"]["message"]


async def test_the_limit_of_all_keys_is_503() -> None:
    keys = [key("sk-a"), key("sk-b")]
    async with guarded(FakeEngine(), keys, requests_per_minute=2) as server:
        answer = await post(server, "sk-a")
        assert answer.headers[f"{_RATE}limit-requests"] == "2"
        await post(server, "sk-b")
        refused = await post(server, "sk-a")
        assert (refused.status, refused.json()["error"]["code"]) == (503, "overloaded")
        assert 55 <= int(refused.headers["retry-after"]) <= 60


COUNTED = {
    "/tokenize": {"model": "fake", "prompt": "Hi"},
    "/detokenize": {"model": "fake", "tokens": []},
    f"{PATH}/input_tokens": {"model": "fake", "messages": MESSAGES},
    "/v1/responses/input_tokens": {"model": "fake", "input": "Hi"},
}


@pytest.mark.parametrize("path", COUNTED)
async def test_what_generates_nothing_is_a_request_too_and_takes_no_tokens(path: str) -> None:
    limits = {"requests_per_minute": 2, "parallel_requests": 1}
    limits |= {"tokens_per_minute": 1, "tokens_per_day": 1}
    async with guarded(FakeEngine(), [key("sk", **limits)]) as server:
        headers = {"authorization": "Bearer sk"}
        for left in ("1", "0"):
            asked = ("POST", path, COUNTED[path], headers)
            answer = await asyncio.to_thread(call, server.port, *asked)
            assert (answer.status, answer.headers[f"{_RATE}remaining-requests"]) == (200, left)
            assert answer.headers[f"{_RATE}remaining-tokens"] == "1"
        answer = await asyncio.to_thread(call, server.port, *asked)
        assert (answer.status, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")


async def test_a_key_at_its_limit_has_no_grammar_checked() -> None:
    body = {"structured_outputs": {"regex": "[a-z]+"}}
    async with guarded(FakeEngine(), [key("sk", requests_per_minute=1)]) as server:
        assert (await post(server, "sk")).status == 200
        assert (await post(server, "sk", **body)).status == 429
        assert server.gateway.grammars.pid is None


async def test_a_grammar_that_cannot_be_run_gives_all_tokens_back() -> None:
    limited = key("sk", tokens_per_minute=1000, parallel_requests=1)
    async with guarded(FakeEngine(), [limited]) as server:
        for _ in range(2):
            answer = await post(server, "sk", structured_outputs={"regex": "(?=a)b("})
            assert answer.status == 400, answer.body
        assert server.gateway.limiter.headers(limited)[f"{_RATE}remaining-tokens"] == "1000"


def gated(gate: asyncio.Event, slots: int = 4) -> FakeEngine:
    def script(_: Job) -> Iterable[Step]:
        return [gate, "Done."]

    return FakeEngine(script, slots=slots)


async def test_who_leaves_or_was_never_let_in_owes_no_tokens() -> None:
    gate = asyncio.Event()
    engine = gated(gate)
    limited = key("sk", tokens_per_minute=5000)
    async with guarded(engine, [limited], queue_size=1) as server:

        def left() -> int:
            return int(server.gateway.limiter.headers(limited)[f"{_RATE}remaining-tokens"])

        asked = [asyncio.create_task(post(server, "sk", max_tokens=500)) for _ in range(5)]
        admission = server.gateway.default()[1].service.admission
        await until(lambda: (admission.running, admission.waiting) == (4, 1))
        held = 5000 - left()
        assert held >= 5 * 500
        assert (await post(server, "sk", max_tokens=500)).status == 503
        assert 5000 - left() == held
        leaver = await asyncio.open_connection("127.0.0.1", server.port)
        body = json.dumps({"model": "fake", "messages": MESSAGES, "max_tokens": 9}).encode()
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        gate.set()
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
        # Each of five has said one word to one word.
        await until(lambda: 5000 - left() == 10)
        gate.clear()
        leaver[1].write(head.encode() + body)
        await until(lambda: engine.record.open == 1)
        leaver[1].close()
        await until(lambda: engine.record.open == 0)
        # Its prompt was with the engine, which had not counted it yet; the answer is given back.
        await until(lambda: 10 < 5000 - left() < 10 + 9 + 40)


class Connections:
    """A hundred connections that stay open, each for one request at a time."""

    def __init__(self, pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        self._pairs = pairs

    async def all_at_once(self, secret: str, served: int, gate: asyncio.Event) -> list[int]:
        """One request on each; the statuses. The gate opens when all but those that are to be
        served have been answered."""
        body = json.dumps({"model": "fake", "messages": MESSAGES, "max_tokens": 10}).encode()
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        statuses: list[int] = []
        for _, writer in self._pairs:
            writer.write(head.encode() + body)
        reading = asyncio.gather(*(self._read(reader, statuses) for reader, _ in self._pairs))
        await until(lambda: len(statuses) >= len(self._pairs) - served)
        gate.set()
        await reading
        gate.clear()
        return statuses

    @staticmethod
    async def _read(reader: asyncio.StreamReader, statuses: list[int]) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
        await reader.readexactly(int(fields[b"content-length"]))
        statuses.append(int(head[9:12]))

    def close(self) -> None:
        for _, writer in self._pairs:
            writer.close()


async def test_a_hundred_requests_at_once_let_in_exactly_what_is_left(soak: bool) -> None:
    gate = asyncio.Event()
    engine = gated(gate, slots=200)
    async with guarded(engine, [key("probe", tokens_per_minute=1000)]) as server:
        gate.set()
        probed = await post(server, "probe", max_tokens=10)
        each = 1000 - int(probed.headers[f"{_RATE}remaining-tokens"])
        gate.clear()
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(100)]
        crowd = Connections(opened)
        for number in range(1000 if soak else 8):
            left = number * 37 % 101
            limits = (
                {"requests_per_minute": left},
                {"tokens_per_minute": left * each + each - 1},
                {"parallel_requests": left},
                {"tokens_per_day": left * each},
            )[number % 4]
            whose = key(f"sk-{number}", **limits)
            server.gateway.keys.replace([(digest_of(whose.id.encode()), whose)])
            statuses = await crowd.all_at_once(whose.id, left, gate)
            assert (statuses.count(200), statuses.count(429)) == (left, 100 - left)
        crowd.close()


def any_end(dice: random.Random) -> Callable[[Job], Iterable[Step]]:
    """A script that answers, breaks before its first word or after it, or takes its time."""

    def script(_: Job) -> Iterable[Step]:
        chance = dice.random()
        if chance < 0.1:
            return [RuntimeError("broken")]
        if chance < 0.2:
            return ["One", EngineFailed("broken")]
        return [step for _ in range(dice.randrange(1, 6)) for step in (dice.random() / 50, "word ")]

    return script


def any_request(dice: random.Random, id: str) -> bytes:
    """A request that is good, or refused somewhere on its way."""
    path, body = PATH, {"model": "fake", "messages": MESSAGES, "max_tokens": 9}
    body |= {"n": dice.choice([1, 1, 1, 2, 3]), "stream": dice.random() < 0.5}
    chance = dice.random()
    if chance < 0.1:
        body["temperature"] = 9
    elif chance < 0.2:
        body["structured_outputs"] = {"regex": dice.choice(["(", "[a-z ]*"])}
    elif chance < 0.3:
        path, body = "/tokenize", {"model": "fake", "prompt": "Hi"}
    elif chance < 0.4:
        path, body = "/", {"prompt": "Hi"}
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-{dice.choice('abc')}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
        f"x-request-id: {id}\r\nconnection: close\r\n"
    )
    if dice.random() < 0.3:
        head += f"x-request-timeout: {dice.choice(['0.001', '0.02', 'soon'])}\r\n"
    return head.encode() + b"\r\n" + data


async def test_nothing_is_left_of_requests_however_they_end(soak: bool, tmp_path: Path) -> None:
    """No reservation, slot or place in the queue, and never two rows for one request."""
    dice = random.Random(7)
    keys = [key(f"sk-{name}", parallel_requests=9, tokens_per_minute=10**9) for name in "abc"]
    file = tmp_path / "gateway.db"
    engine = FakeEngine(any_end(dice), slots=3)
    turns = asyncio.Semaphore(24)

    async def one(port: int, number: int) -> None:
        async with turns:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(any_request(dice, f"r{number}"))
            if dice.random() < 0.35:
                await asyncio.sleep(dice.random() * 0.03)
                writer.transport.abort()
            else:
                assert (await reader.read()).startswith(b"HTTP/1.1 ")
                writer.close()

    async with live(engine, queue_size=4, database=file) as server:
        gateway = server.gateway
        gateway.keys.replace([(digest_of(each.id.encode()), each) for each in keys])
        await asyncio.gather(*(one(server.port, each) for each in range(5000 if soak else 250)))
        admission = gateway.default()[1].service.admission
        await until(lambda: gateway.metrics.in_flight == 0)
        assert (admission.running, admission.waiting, engine.record.open) == (0, 0, 0)
        # Each may have as many at once as before.
        held = [gateway.limiter.reserve(each, 1) for each in keys for _ in range(9)]
        for reservation in held:
            reservation.settle(0)
    connection = sqlite3.connect(file)
    rows, requests = connection.execute(
        "SELECT count(*), count(DISTINCT request) FROM usage"
    ).fetchone()
    outcomes = {row[0] for row in connection.execute("SELECT DISTINCT outcome FROM usage")}
    connection.close()
    assert rows == requests
    assert {"ok", "aborted", "refused"} <= outcomes <= {"ok", "aborted", "error", "refused"}


def test_a_flood_slows_no_calm_key() -> None:
    """As `bench.fairness` measures it, in small; it aims at a fifth of these times."""
    numbers = ["--seconds", "1.2", "--service", "0.2", "--slots", "4", "--calm", "0.2"]
    command = [sys.executable, "-m", "bench.fairness", *numbers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    times = re.search(r"beside: ([\d.]+) times\ncalm refused 0 of", said)
    share = re.search(r"in the flood: ([\d.]+) of it", said)
    assert times, said
    assert share, said
    assert float(times[1]) < 10, said
    assert float(share[1]) > 0.2, said
    assert re.search(r"^refused \d{2,}, p50 ", said, re.M), said


async def test_a_crowd_after_a_restart_gets_exactly_what_was_left(tmp_path: Path) -> None:
    database = tmp_path / "gateway.db"
    statuses: list[int] = []
    for served in (20, 10):
        gate = asyncio.Event()
        engine = gated(gate, slots=100)
        async with live(engine, database=database, requests_per_minute=30) as server:
            opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
            crowd = Connections(opened)
            statuses += await crowd.all_at_once("anybody", served, gate)
            crowd.close()
    assert (statuses.count(200), statuses.count(503)) == (30, 10)
