"""A real gateway process in front of mocks: signals, no file descriptors left, two faults at once
(rows 61, 65 and 69).
"""

import asyncio
import contextlib
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.live import until
from tests.upstream.client import Call, Heard, chat, heard
from tests.upstream.process import (
    GatewayProcess,
    Mock,
    ask,
    config_of,
    gateway_process,
    mocks,
)

_STREAMS = 50


@pytest.fixture(scope="module")
def started() -> Iterator[list[Mock]]:
    with mocks("a", "b") as made:
        yield made


@pytest.fixture
def pair(started: list[Mock]) -> list[Mock]:
    """Two mocks that behave and have counted nothing."""
    for mock in started:
        mock.control("", clear=True, models=["m"])
    return started


async def _open(gateway: GatewayProcess, behaviour: str) -> dict[str, Call]:
    """Open streams, each of which has brought something."""
    calls = {}
    for index in range(_STREAMS):
        tag = f"{index} mock:{behaviour}"
        calls[tag] = await Call.post(gateway.port, chat(tag))
    await asyncio.gather(*(call.until("\n") for call in calls.values()))
    return calls


async def _refused(gateway: GatewayProcess) -> bool:
    """Whether a new request is refused or answered 503."""
    try:
        answer = await heard(gateway.port, "late")
    except OSError:
        return True
    return answer.status == 503 or not answer.status


def _gone(gateway: GatewayProcess) -> bool:
    assert gateway.process is not None
    return gateway.process.poll() is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_fifty_streams_finish(
    pair: list[Mock], tmp_path: Path, number: signal.Signals
) -> None:
    """Row 61: nothing is cut, new work is refused at once, and the end is a success."""
    with gateway_process(tmp_path, pair) as gateway:
        gateway.wait_ready()
        calls = await _open(gateway, "gap=0.05,deltas=20")
        gateway.signal(number)
        begun = time.monotonic()
        while not await _refused(gateway):
            pass
        assert time.monotonic() - begun < 0.5  # 100 ms are promised
        for tag, call in calls.items():
            (await call.rest()).whole(tag, 20)
        await until(lambda: _gone(gateway))
        assert gateway.wait() == 0
        assert sum(mock.report()["finished"] for mock in pair) >= _STREAMS


@pytest.mark.parametrize("how", ["second signal", "no drain time"])
async def test_a_hurried_end_tells_every_stream(pair: list[Mock], tmp_path: Path, how: str) -> None:
    """Row 61: a second SIGTERM ends within a second, a drain time of 0 within four; each stream
    gets an error event, and each upstream is closed."""
    drain = "drain_timeout = 0" if how == "no drain time" else ""
    with gateway_process(tmp_path, pair, config=drain) as gateway:
        gateway.wait_ready()
        calls = await _open(gateway, "gap=0.05,deltas=100000")
        gateway.signal(signal.SIGTERM)
        if how == "second signal":
            await until(lambda: ask_ready(gateway) != 200)
            gateway.signal(signal.SIGTERM)
        begun = time.monotonic()
        for tag, call in calls.items():
            (await call.rest()).broken(tag)
        await until(lambda: _gone(gateway))
        assert time.monotonic() - begun < 5
        assert sum(len(mock.report()["left"]) for mock in pair) == _STREAMS


def ask_ready(gateway: GatewayProcess) -> int:
    """The status of readiness; 0 where nobody listens."""
    try:
        return ask(gateway.port, "GET", "/health/ready")[0]
    except OSError:
        return 0


async def test_sighup_reads_the_file_again_and_cuts_nothing(
    pair: list[Mock], tmp_path: Path
) -> None:
    """Row 61: an upstream more, and the open stream goes on."""
    pair[1].control(models=["second"])
    with gateway_process(tmp_path, pair[:1]) as gateway:
        gateway.wait_ready()
        call = await Call.post(gateway.port, chat("x mock:gap=0.05,deltas=40"))
        await call.until("\n")
        (tmp_path / "gateway.toml").write_text(config_of(pair))
        gateway.signal(signal.SIGHUP)

        def names() -> list[str]:
            return [row["id"] for row in ask(gateway.port, "GET", "/v1/models")[1]["data"]]

        await until(lambda: "second" in names())
        (await heard(gateway.port, "y mock:deltas=3", model="second")).whole("y mock:deltas=3", 3)
        (tmp_path / "gateway.toml").write_text("this is [no TOML")
        gateway.signal(signal.SIGHUP)
        (await call.rest()).whole("x mock:gap=0.05,deltas=40", 40)
        assert "second" in names()


async def test_a_kill_leaves_the_database_whole(pair: list[Mock], tmp_path: Path) -> None:
    """Row 61: SIGKILL with streams open: the file is sound, and the next start is as any."""
    file = tmp_path / "usage.db"
    for _ in range(2):
        with gateway_process(tmp_path, pair, "--database", str(file)) as gateway:
            gateway.wait_ready()
            for index in range(10):
                await heard(gateway.port, f"{index} mock:deltas=3", stream=False)
            calls = await _open(gateway, "gap=0.05,deltas=1000")
            gateway.kill()
            for call in calls.values():
                call.leave()
        with contextlib.closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_without_file_descriptors_it_waits_and_recovers(
    pair: list[Mock], tmp_path: Path
) -> None:
    """Row 65: `ulimit -n 64`: no spin, no end, and all is well when there is room again."""
    limit = ("bash", "-c", 'ulimit -n 64; exec "$@"', "--")
    with gateway_process(tmp_path, pair, prefix=limit, config="header_timeout = 30") as gateway:
        gateway.wait_ready()
        text = "before mock:deltas=3"
        (await heard(gateway.port, text)).whole(text, 3)
        idle = []
        for _ in range(120):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", gateway.port))
            idle.append(sock)
        process = psutil.Process(gateway.pid)
        await until(lambda: process.num_fds() >= 62)
        used = _cpu(process)
        await asyncio.sleep(1)
        assert _cpu(process) - used < 0.5
        for sock in idle:
            sock.close()
        await until(lambda: process.num_fds() < 50)
        for index in range(10):
            text = f"{index} mock:deltas=3"
            (await heard(gateway.port, text)).whole(text, 3)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _users(
    gateway: GatewayProcess, pair: list[Mock], count: int, seconds: float
) -> tuple[list[Heard], float, int]:
    """Let users ask one after another for a while: answers, CPU seconds for each, memory then."""
    process = psutil.Process(gateway.pid)
    before, end = _cpu(process), time.monotonic() + seconds
    answers: list[Heard] = []

    async def user(number: int) -> None:
        turn = 0
        while time.monotonic() < end:
            turn += 1
            stream = bool((number + turn) % 2)
            answers.append(await heard(gateway.port, f"{number} {turn}", stream=stream))

    await asyncio.gather(*(user(number) for number in range(count)))
    return answers, (_cpu(process) - before) / len(answers), process.memory_info().rss


async def test_a_locked_database_and_failing_upstreams_at_once(
    pair: list[Mock], tmp_path: Path, soak: bool
) -> None:
    """Row 69: 50 users while another process holds the database and an upstream fails: every
    failure is typed, and neither memory nor CPU nor the log runs away."""
    seconds = 20.0 if soak else 2.0
    file = tmp_path / "usage.db"
    words = ("--database", str(file), "--breaker-failures", "1000000")
    with gateway_process(tmp_path, pair, *words) as gateway:
        gateway.wait_ready()
        calm, calm_cpu, calm_memory = await _users(gateway, pair, 50, seconds)
        assert {answer.status for answer in calm} == {200}
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            pair[0].control("status=500")
            pair[1].control("status=500")
            written = gateway.log.stat().st_size
            failed, cpu, memory = await _users(gateway, pair, 50, seconds)
            assert {answer.status for answer in failed} == {502}
            for answer in failed:
                assert answer.error is not None
                assert answer.error["code"] == "upstream_error"
            assert (gateway.log.stat().st_size - written) / len(failed) < 10_000
            pair[1].control("")
            mixed, _, _ = await _users(gateway, pair, 50, seconds)
            assert {answer.status for answer in mixed} == {200}
            holder.execute("ROLLBACK")
        assert memory < 2 * calm_memory
        # Each failure has asked two upstreams, and written a line about it.
        assert cpu < 3 * calm_cpu, (cpu, calm_cpu)
        assert not _gone(gateway)


async def test_a_gateway_that_starts_before_its_upstreams(tmp_path: Path) -> None:
    """Row 60: nothing there at the start: not ready, 503 with a time; then all comes by itself."""
    late = Mock("late")
    late.start()
    late.kill()
    try:
        with gateway_process(tmp_path, [late], config="probe_interval = 0.2") as gateway:
            assert ask_ready(gateway) == 503
            answer = await heard(gateway.port, "x")
            assert answer.status in (404, 503)
            assert answer.error is not None
            late.start()
            gateway.wait_ready()
            text = "y mock:deltas=3"
            (await heard(gateway.port, text)).whole(text, 3)
    finally:
        late.close()
