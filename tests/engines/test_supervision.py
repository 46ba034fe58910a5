"""What happens when the engine process dies, hangs or does not start again; no orphans."""

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import uvloop
from structlog.testing import capture_logs

from qwen_openai.core import Event, Sampling, Text
from qwen_openai.engines.llamacpp import LlamaCppEngine, Timings
from qwen_openai.engines.llamacpp.supervisor import Supervisor
from qwen_openai.errors import EngineFailed, EngineUnavailable, StartupError
from qwen_openai.models.store import ModelFiles
from tests.engines.conftest import MakeEngine, Running
from tests.engines.contract import collect, drain, finish_of, job, until
from tests.engines.test_process import config

QUICK = Timings(heartbeat=0.1, silence=2.0, first_delay=0.05)
PROMPTLY = 5.0  # seconds; the promise is one, and a busy machine may be slow
SHORT = job(sampling=Sampling(temperature=0.0, max_tokens=2))


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def streaming(engine: LlamaCppEngine, count: int) -> list[AsyncIterator[Event]]:
    """Streams that have each brought a token."""
    streams = [engine.generate(job()) for _ in range(count)]
    for stream in streams:
        while not isinstance(await anext(stream), Text):
            pass
    return list(streams)


@pytest.mark.real
async def test_a_killed_child_fails_every_stream_and_comes_back(running: Running) -> None:
    async with running(timings=QUICK) as engine:
        first = engine.pid
        assert first is not None
        streams = await streaming(engine, 2)
        killed = time.monotonic()
        os.kill(first, signal.SIGKILL)
        for stream in streams:
            with pytest.raises(EngineFailed, match=r"died \(signal 9\) while it answered"):
                await drain(stream, [])
        assert time.monotonic() - killed < PROMPTLY
        assert not engine.health().ready
        with pytest.raises(EngineUnavailable) as caught:
            await collect(engine, SHORT)
        assert caught.value.retry_after >= 1
        await until(lambda: engine.health().ready)
        assert engine.pid != first
        assert finish_of(await collect(engine, SHORT)).completion_tokens == 2


@pytest.mark.real
async def test_a_death_while_idle_is_noticed(running: Running) -> None:
    async with running(timings=QUICK) as engine:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSEGV)
        await until(lambda: not engine.health().ready, PROMPTLY)
        await until(lambda: engine.health().ready)
        assert finish_of(await collect(engine, SHORT)).completion_tokens == 2


@pytest.mark.real
async def test_a_frozen_child_is_noticed_by_its_silence(running: Running) -> None:
    async with running(timings=QUICK) as engine:
        assert engine.pid is not None
        (stream,) = await streaming(engine, 1)
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(EngineFailed, match="no sign of life for 2 seconds"):
            await drain(stream, [])
        await until(lambda: engine.health().ready)
        assert finish_of(await collect(engine, SHORT)).completion_tokens == 2


@pytest.mark.real
async def test_work_without_progress_is_a_hang(running: Running) -> None:
    # The child lives and beats, but one batch of the prompt takes longer than is allowed.
    async with running(timings=QUICK, stall_timeout=0.01, batch_tokens=512) as engine:
        with pytest.raises(EngineFailed, match=r"no progress for 0\.01 seconds"):
            await collect(engine, job("word " * 900))
        await until(lambda: engine.health().ready)


@pytest.mark.real
async def test_an_idle_engine_is_not_a_hang(running: Running) -> None:
    async with running(timings=QUICK, stall_timeout=0.3) as engine:
        first = engine.pid
        await asyncio.sleep(1)
        assert engine.health().ready
        assert engine.pid == first


@pytest.mark.real
async def test_a_gateway_that_slept_does_not_blame_the_child(running: Running) -> None:
    async with running(timings=QUICK) as engine:
        first = engine.pid
        time.sleep(3)  # noqa: ASYNC251  # the loop is to be blocked
        await asyncio.sleep(0.5)
        assert engine.pid == first
        assert engine.health().ready


@pytest.mark.real
async def test_a_restart_that_fails_is_tried_again(
    running: Running, model: ModelFiles, tmp_path: Path
) -> None:
    weights, other = tmp_path / "weights.gguf", tmp_path / "other"
    weights.symlink_to(model.weights)
    async with running(timings=QUICK, weights=weights) as engine:
        assert engine.pid is not None
        other.write_bytes(b"garbage" * 100)
        other.replace(weights)
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: "does not start" in engine.health().detail)
        assert "cannot be loaded" in engine.health().detail
        with pytest.raises(EngineUnavailable, match="cannot be loaded"):
            await collect(engine, SHORT)
        other.symlink_to(model.weights)
        other.replace(weights)
        await until(lambda: engine.health().ready)
        assert finish_of(await collect(engine, SHORT)).completion_tokens == 2


@pytest.mark.real
async def test_a_restart_that_fails_unforeseen_is_logged_and_tried_again(
    model: ModelFiles,
) -> None:
    launches: list[int] = []

    def on_launch() -> None:
        launches.append(1)
        if len(launches) == 2:
            raise RuntimeError("nobody thought of this")

    supervisor = Supervisor(
        config(model.weights),
        QUICK,
        on_frame=lambda _: None,
        on_down=lambda _: None,
        on_launch=on_launch,
        stalled=lambda: None,
    )
    await supervisor.start()
    try:
        assert supervisor.pid is not None
        with capture_logs() as logs:
            os.kill(supervisor.pid, signal.SIGKILL)
            await until(lambda: len(launches) == 3)
            await until(lambda: supervisor.health().ready)
        failed = next(entry for entry in logs if entry["event"] == "engine_restart_failed")
        assert failed["reason"] == "RuntimeError: nobody thought of this"
        assert supervisor.retry_after == 4 * QUICK.first_delay / 2 + 2
    finally:
        await supervisor.aclose()
    assert psutil.Process().children() == []


@pytest.mark.real
@pytest.mark.parametrize("content", [b"", b"no model" * 1000])
async def test_a_file_that_is_no_model_is_one_sentence(
    make_engine: MakeEngine, tmp_path: Path, content: bytes
) -> None:
    weights = tmp_path / "bad.gguf"
    weights.write_bytes(content)
    engine = make_engine(weights=weights)
    with pytest.raises(StartupError, match=r"bad\.gguf cannot be loaded: .*magic") as caught:
        await engine.start()
    assert "Pull the model again" in caught.value.fix
    assert engine.pid is None
    assert not engine.health().ready
    await engine.aclose()


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="limits another process's memory")
async def test_too_little_memory_is_one_sentence(make_engine: MakeEngine) -> None:
    engine = make_engine(context=2**17)
    start = asyncio.create_task(engine.start())
    await until(lambda: engine.pid is not None)
    assert engine.pid is not None
    resource.prlimit(engine.pid, resource.RLIMIT_AS, (2**31, 2**31))
    with pytest.raises(StartupError, match="not enough memory") as caught:
        await start
    assert "--context" in caught.value.fix
    await engine.aclose()


@pytest.mark.real
async def test_a_start_that_is_given_up_leaves_no_process(make_engine: MakeEngine) -> None:
    engine = make_engine()
    start = asyncio.create_task(engine.start())
    await until(lambda: engine.pid is not None)
    pid = engine.pid
    assert pid is not None
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await until(lambda: gone(pid))


@pytest.mark.real
async def test_closing_ends_the_process(running: Running) -> None:
    async with running() as engine:
        pid = engine.pid
        assert pid is not None
    assert gone(pid)
    assert engine.pid is None


@pytest.mark.real
async def test_ctrl_c_does_not_reach_the_child(running: Running) -> None:
    async with running() as engine:
        assert engine.pid is not None
        assert os.getpgid(engine.pid) != os.getpgid(0)
        os.kill(engine.pid, signal.SIGINT)
        assert finish_of(await collect(engine, SHORT)).completion_tokens == 2


@pytest.mark.real
@pytest.mark.parametrize("loaded", [False, True])
async def test_a_killed_gateway_leaves_no_child(model: ModelFiles, loaded: bool) -> None:
    gateway = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.engines.orphan",
        str(model.weights),
        stdout=asyncio.subprocess.PIPE,
    )
    assert gateway.stdout is not None
    pid = int(await gateway.stdout.readline())
    if loaded:
        assert await gateway.stdout.readline() == b"ready\n"
    gateway.kill()
    await gateway.wait()
    await until(lambda: gone(pid), 10)


@pytest.mark.real
def test_the_same_holds_under_uvloop(running: Running) -> None:
    async def main() -> None:
        async with running(timings=QUICK) as engine:
            (stream,) = await streaming(engine, 1)
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            with pytest.raises(EngineFailed, match="signal 9"):
                await drain(stream, [])
            await until(lambda: engine.health().ready)
            assert finish_of(await collect(engine, SHORT)).completion_tokens == 2

    uvloop.run(main())
