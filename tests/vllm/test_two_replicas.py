"""Two vLLM servers behind the gateway: clients, tools, our facts, and the death of one of them."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import APIError, AsyncOpenAI, OpenAI
from pydantic import SecretStr

from tests.models.qwen1.real_fixture import real_native
from tests.upstream.process import GatewayProcess
from tests.vllm.replica import MODEL, Replica

_PROGRAM = os.environ.get("VLLM_PROGRAM", "")
_KEY = "sk-test-of-vllm"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not _PROGRAM, reason="scripts/test-vllm runs it, with a vLLM of its own"),
]

_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    logs = tmp_path_factory.mktemp("vllm")
    made = [Replica(_PROGRAM, name, real_native(), logs) for name in ("left", "right")]
    try:
        for replica in made:
            replica.start()
        for replica in made:
            replica.wait_ready()
        yield made
    finally:
        for replica in made:
            replica.close()


@pytest.fixture(scope="module")
def gateway(
    replicas: list[Replica], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    config = folder / "gateway.toml"
    tables = [f'[[upstreams]]\nname = "{each.name}"\nurl = "{each.url}"\n' for each in replicas]
    config.write_text("probe_interval = 1\n" + "\n".join(tables))
    database = str(folder / "gateway.db")
    made = GatewayProcess(folder, "--config", str(config), "--database", database)
    try:
        made.start({"QWEN_OPENAI_API_KEY": _KEY}).wait_ready(60)
        yield made
    finally:
        made.close()


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[OpenAI]:
    url = f"http://127.0.0.1:{gateway.port}/v1"
    with OpenAI(base_url=url, api_key=_KEY, max_retries=0, timeout=300) as made:
        yield made


def _langchain(gateway: GatewayProcess) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"http://127.0.0.1:{gateway.port}/v1",
        api_key=SecretStr(_KEY),
        model=MODEL,
        temperature=0,
        max_retries=0,
    )


def test_the_openai_client_gets_plain_answers(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Reply with one word: the capital of France."}],
        temperature=0,
        max_tokens=8,
    )
    answer = raw.parse()
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 10
    assert raw.headers["x-gateway-upstream"] in ("left", "right")
    assert raw.headers["x-gateway-attempts"] == "1"


def test_the_openai_client_gets_streams_with_their_usage(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Count from 1 to 5."}],
            temperature=0,
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "3" in text
    usage = chunks[-1].usage
    assert usage is not None
    assert 0 < usage.completion_tokens <= 24


def test_the_openai_client_gets_tool_calls(client: OpenAI) -> None:
    """The Coder writes its calls as bare JSON, which vLLM's own parser leaves in the text."""
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris? Use the tool."}],
        tools=[_WEATHER],  # type: ignore[list-item]  # a plain dict of the same shape
        temperature=0,
        max_tokens=64,
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert "Paris" in calls[0].model_dump_json()


def test_langchain_gets_all_three(gateway: GatewayProcess) -> None:
    model = _langchain(gateway)
    plain = model.invoke([HumanMessage("Reply with one word: the capital of France.")])
    assert "Paris" in plain.text
    whole: AIMessageChunk | None = None
    for chunk in model.stream([HumanMessage("Count from 1 to 5.")], max_tokens=24):
        assert isinstance(chunk, AIMessageChunk)
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert "3" in whole.text

    @tool
    def get_weather(city: str) -> str:
        """Get the weather of a city."""
        return f"Sunny in {city}."

    called = model.bind_tools([get_weather]).invoke("What is the weather in Paris? Use the tool.")
    assert [call["name"] for call in called.tool_calls] == ["get_weather"]


def test_our_facts_hold_in_front_of_vllm(gateway: GatewayProcess) -> None:
    program = [sys.executable, "-m", "qwen_openai", "check"]
    url = f"http://127.0.0.1:{gateway.port}/v1"
    done = subprocess.run(
        [*program, url, "--model", MODEL, "--key", _KEY, "--timeout", "300"],
        capture_output=True,
        text=True,
        timeout=900,
    )
    print(done.stdout)  # noqa: T201  # the list of facts, for whoever runs this
    assert done.returncode == 0, done.stdout + done.stderr


async def test_one_dies_under_load_and_comes_back(
    gateway: GatewayProcess, replicas: list[Replica]
) -> None:
    """Streams that the dead one had begun get an error event, all else is answered by the other."""
    url = f"http://127.0.0.1:{gateway.port}/v1"
    async with AsyncOpenAI(base_url=url, api_key=_KEY, max_retries=0, timeout=300) as client:
        begun = {each.name: asyncio.Event() for each in replicas}
        outcomes: Counter[str] = Counter()
        late: list[float] = []
        died = [0.0]

        async def stream(number: int) -> None:
            raw = await client.chat.completions.with_raw_response.create(
                model=MODEL,
                messages=[{"role": "user", "content": f"Number {number}: write a long poem."}],
                max_tokens=48,
                stream=True,
            )
            upstream = raw.headers["x-gateway-upstream"]
            finished = False
            try:
                async for chunk in raw.parse():
                    begun[upstream].set()
                    finished = finished or bool(chunk.choices and chunk.choices[0].finish_reason)
            except APIError:
                late.append(time.monotonic() - died[0])
                outcomes[f"{upstream} error"] += 1
                return
            outcomes[f"{upstream} {'whole' if finished else 'silently cut'}"] += 1

        open_streams = [asyncio.create_task(stream(number)) for number in range(8)]
        victim = replicas[0]
        await begun[victim.name].wait()
        victim.kill()
        died[0] = time.monotonic()
        after = [asyncio.create_task(stream(number)) for number in range(100, 104)]
        await asyncio.gather(*open_streams, *after)
        print(dict(outcomes), f"errors after {[round(each, 2) for each in late]} s")  # noqa: T201
        assert set(outcomes) <= {"left error", "right whole"}
        assert outcomes["left error"] >= 1
        assert outcomes["right whole"] >= 4 + 1
        assert all(each < 5 for each in late)  # a second is the promise

        victim.start()
        await asyncio.to_thread(victim.wait_ready)
        seen: Counter[str] = Counter()
        end = time.monotonic() + 60
        while "left" not in seen and time.monotonic() < end:
            raw = await client.chat.completions.with_raw_response.create(
                model=MODEL,
                messages=[{"role": "user", "content": f"{sum(seen.values())}: say hello."}],
                max_tokens=2,
            )
            seen[raw.headers["x-gateway-upstream"]] += 1
        assert seen["left"], seen
