"""An engine that is lost, seen from outside: what health says, and when the server ends."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen_openai.engines.factory import create_engine
from qwen_openai.engines.transformers.engine import TransformersEngine
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import read_checkpoint
from qwen_openai.server import bind, serve
from tests.engines.contract import until
from tests.engines.transformers.small import failing
from tests.live import Answer, call, live, make_settings

ASKED = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 5, "temperature": 0}


def engine_on(folder: Path, **values: object) -> tuple[TransformersEngine, Any]:
    settings = make_settings(engine="transformers", slots=2, threads=1, context=256, **values)
    engine = create_engine(settings, read_checkpoint(folder))
    assert isinstance(engine, TransformersEngine)
    return engine, settings


def model_of(engine: TransformersEngine) -> Any:  # noqa: ANN401  # a PreTrainedModel
    assert engine._served is not None
    return engine._served.runner._model


async def post(port: int, engine: TransformersEngine) -> Answer:
    body = {"model": engine.info().model, **ASKED}
    return await asyncio.to_thread(call, port, "POST", "/v1/chat/completions", body)


async def get(port: int, path: str) -> Answer:
    return await asyncio.to_thread(call, port, "GET", path)


def broken(_: object) -> None:
    raise RuntimeError("a kernel failed")


async def test_a_hang_is_seen_by_who_balances_and_by_new_requests(qwen2_folder: Path) -> None:
    gate = threading.Event()

    def hang(_: object) -> None:
        gate.wait(60)

    engine, _ = engine_on(qwen2_folder, stall_timeout=0.5)
    async with live(engine) as server:
        with failing(model_of(engine), hang):
            answer = await post(server.port, engine)
            assert (answer.status, answer.json()["error"]["code"]) == (500, "engine_error")
            assert (await get(server.port, "/health/ready")).status == 503
            refused = await post(server.port, engine)
            assert refused.status == 503
            assert refused.json()["error"]["code"] == "engine_unavailable"
            gate.set()
        await until(lambda: engine.health().ready)
        assert (await get(server.port, "/health/ready")).status == 200
        assert (await post(server.port, engine)).status == 200


async def test_a_lost_engine_stays_unready_where_nobody_says_to_exit(qwen2_folder: Path) -> None:
    engine, _ = engine_on(qwen2_folder)
    async with live(engine) as server:
        with failing(model_of(engine), broken):
            statuses = [(await post(server.port, engine)).status for _ in range(5)]
        assert statuses == [500] * 5
        assert engine.health().lost
        answer = await get(server.port, "/health/ready")
        assert answer.status == 503
        assert "Restart the server" in answer.json()["error"]["message"]
        assert (await get(server.port, "/health/live")).status == 200


async def test_a_lost_engine_ends_the_server_that_is_to_exit(qwen2_folder: Path) -> None:
    engine, settings = engine_on(qwen2_folder, on_engine_loss="exit")
    await engine.start()
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(
            settings,
            engine,
            sock=bind(settings),
            on_ready=lambda port, _: ready.set_result(port),
        )
    )
    port = await ready
    assert (await post(port, engine)).status == 200
    with failing(model_of(engine), broken):
        answer = await post(port, engine)
        assert answer.status == 500
    with pytest.raises(StartupError, match="The engine is lost") as ended:
        await serving
    assert "Start it again" in ended.value.fix
    assert engine.health().detail == "closed"


async def test_out_of_memory_ends_no_server(qwen2_folder: Path) -> None:
    engine, _ = engine_on(qwen2_folder, on_engine_loss="exit")
    failed = iter(range(1))

    def no_memory(_: object) -> None:
        if next(failed, None) is not None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    async with live(engine, on_engine_loss="exit") as server:
        with failing(model_of(engine), no_memory):
            assert (await post(server.port, engine)).status == 500
            assert (await post(server.port, engine)).status == 200
        assert engine.health().ready
