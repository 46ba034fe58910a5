"""The child process: its environment, its frames, its failures and its end."""

import asyncio
import json
import resource
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from qwen_openai.core import Sampling
from qwen_openai.engines.llamacpp.child import Config, lacks_avx2
from qwen_openai.engines.llamacpp.frames import Decoder, Frame, Kind, encode
from qwen_openai.engines.llamacpp.process import Process, child_environment
from qwen_openai.engines.llamacpp.requests import Tokens, request_body
from qwen_openai.engines.llamacpp.supervisor import explain_failure
from qwen_openai.models.store import ModelFiles
from qwen_openai.prompting.prepare import Prompt
from tests.engines.contract import job, until


def config(weights: Path, slots: int = 1) -> Config:
    return {
        "weights": str(weights),
        "context": 512,
        "slots": slots,
        "threads": 2,
        "batch_tokens": 32,
        "prompt_cache": False,
        "prompt_cache_mib": 0,
        "heartbeat": 0.1,
    }


@asynccontextmanager
async def child(settings: Config) -> AsyncIterator[tuple[Process, "asyncio.Queue[Frame]"]]:
    """A child and the frames it sends, heartbeats left out."""
    frames: asyncio.Queue[Frame] = asyncio.Queue()

    def deliver(frame: Frame) -> None:
        if frame.kind is not Kind.HEARTBEAT:
            frames.put_nowait(frame)

    process = await Process.spawn(json.dumps(settings).encode(), deliver, lambda: None)
    try:
        async with asyncio.timeout(60):
            yield process, frames
    finally:
        await process.stop(2)


def body(limit: int) -> bytes:
    wanted = job(sampling=Sampling(temperature=0.0))
    tokens = Tokens(frozenset(), frozenset(), 1040, lambda number: b"")
    prompt = Prompt(list(range(1000, 1040)), limit)
    made = request_body(wanted, prompt, tokens, context=512, prompt_cache=False)
    return json.dumps(made).encode()


async def until_end(frames: "asyncio.Queue[Frame]", request: int) -> list[Frame]:
    """The frames of a request up to and with its END."""
    seen: list[Frame] = []
    while not seen or seen[-1].kind is not Kind.END:
        frame = await frames.get()
        if frame.request == request:
            seen.append(frame)
    return seen


class TestEnvironment:
    def test_the_waiting_policy_and_huge_pages_are_set(self) -> None:
        environment = child_environment({"PATH": "/bin"})
        assert environment["GOMP_SPINCOUNT"] == "300"
        assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
        assert environment["PATH"] == "/bin"

    @pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GLIBC_TUNABLES"])
    def test_what_the_user_has_set_stays(self, name: str) -> None:
        environment = child_environment({name: "mine"})
        assert environment[name] == "mine"
        if name == "OMP_WAIT_POLICY":
            assert "GOMP_SPINCOUNT" not in environment

    def test_our_key_stays_with_the_gateway(self) -> None:
        assert "QWEN_OPENAI_API_KEY" not in child_environment({"QWEN_OPENAI_API_KEY": "secret"})


@pytest.mark.parametrize(
    ("failure", "returncode", "lines", "said", "fix"),
    [
        ("cpu", 1, [], "AVX2", "build xllamacpp"),
        ("died", -4, [], "AVX2", "build xllamacpp"),
        ("library", 1, [], "libgomp.so.1", "apt-get install libgomp1"),
        ("memory", 1, [], "not enough memory", "smaller --context"),
        ("died", -9, [], "not enough memory", "smaller --context"),
        ("model", 1, ["0.1 E x: failed to allocate CPU buffer"], "not enough memory", "--slots"),
        (
            "model",
            1,
            ["0.00 E read: invalid magic characters: 'ab', expected 'GGUF'", "0.01 E y: exiting"],
            "cannot be loaded: invalid magic characters: 'ab', expected 'GGUF'.",
            "Pull the model again",
        ),
        ("died", -11, [], "cannot be loaded: died .signal 11.", "Pull the model again"),
    ],
)
def test_each_failure_is_one_sentence_with_a_fix(
    failure: str, returncode: int, lines: list[str], said: str, fix: str
) -> None:
    detail = "libgomp.so.1: cannot open shared object file"
    if failure == "died":
        detail = f"died (signal {-returncode})"
    error = explain_failure(
        {"reason": failure, "detail": detail}, returncode, lines, config(Path("m.gguf"))
    )
    assert said.replace(".signal 11.", "(signal 11)") in error.message
    assert fix in error.fix
    assert "\n" not in error.message


def test_this_machine_can_run_it() -> None:
    assert not lacks_avx2()


async def test_a_model_that_is_none_is_reported_with_what_llama_cpp_said(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"no model at all" * 100)
    async with child(config(garbage)) as (process, frames):
        frame = await frames.get()
        assert frame.kind is Kind.FAILED
        assert json.loads(frame.payload)["reason"] == "model"
        assert await process.ended == "ended (exit code 1)"
        assert any("magic" in line for line in process.lines)


@pytest.mark.real
async def test_a_cancelled_request_makes_no_more_tokens(model: ModelFiles) -> None:
    async with child(config(model.weights)) as (process, frames):
        assert (await frames.get()).kind is Kind.READY
        process.send(Kind.SUBMIT, 1, body(200))
        for _ in range(6):
            assert (await frames.get()).kind is Kind.CHUNK
        process.send(Kind.CANCEL, 1)
        rest = await until_end(frames, 1)
        # One token may have been on its way when the cancel was sent.
        assert len(rest) <= 2
        assert rest[-1] == Frame(Kind.END, 1, b"")


@pytest.mark.real
async def test_a_request_cancelled_in_the_queue_is_dropped(model: ModelFiles) -> None:
    async with child(config(model.weights)) as (process, frames):
        assert (await frames.get()).kind is Kind.READY
        process.send(Kind.SUBMIT, 1, body(8))
        process.send(Kind.SUBMIT, 2, body(200))
        process.send(Kind.CANCEL, 2)
        process.send(Kind.CANCEL, 99)
        assert len(await until_end(frames, 1)) > 8
        assert await until_end(frames, 2) == [Frame(Kind.END, 2, b"")]


@pytest.mark.real
async def test_it_ends_when_the_gateway_hangs_up(model: ModelFiles) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "qwen_openai.engines.llamacpp.child",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        writer.write(encode(Kind.LOAD, payload=json.dumps(config(model.weights)).encode()))
        decoder, kinds = Decoder(), set[Kind]()
        while Kind.READY not in kinds:
            kinds |= {frame.kind for frame in decoder.feed(await reader.read(2**16))}
        if sys.platform == "linux":
            # A core file of a model's size would hide a death while it is written.
            assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
        writer.close()
        async with asyncio.timeout(60):
            assert await process.wait() == 0
        await writer.wait_closed()


async def test_a_spawn_that_is_cancelled_at_any_moment_leaves_nothing() -> None:
    # Two first, for what the loop opens once.
    for _ in range(2):
        await (await Process.spawn(b"{}", lambda _: None, lambda: None)).ended
    us = psutil.Process()
    files, moment, spawned = us.num_fds(), 0, False

    def nothing_left() -> bool:
        return us.num_fds() <= files and len(asyncio.all_tasks()) == 1 and not us.children()

    while not spawned:
        spawn = asyncio.create_task(Process.spawn(b"{}", lambda _: None, lambda: None))
        for _ in range(moment):
            await asyncio.sleep(0)
        spawned = spawn.done()
        if spawned:
            await spawn.result().stop(2)
        else:
            spawn.cancel()
            with pytest.raises(asyncio.CancelledError):
                await spawn
        moment += 1
        await until(nothing_left)
    assert moment > 1


async def test_a_spawn_that_cannot_connect_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError("no connection today")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_unix_connection", refuse)
    with pytest.raises(OSError, match="today"):
        await Process.spawn(b"{}", lambda _: None, lambda: None)
    assert psutil.Process().children() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.real
async def test_its_private_port_wants_a_key(model: ModelFiles) -> None:
    async with child(config(model.weights)) as (process, frames):
        assert (await frames.get()).kind is Kind.READY
        listening = [
            connection.laddr
            for connection in psutil.Process(process.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert [address.ip for address in listening] == ["127.0.0.1"]
        reader, writer = await asyncio.open_connection("127.0.0.1", listening[0].port)
        content = b'{"prompt": "hi", "n_predict": 1}'
        head = f"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        assert b" 401 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
