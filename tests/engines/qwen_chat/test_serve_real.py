"""Real weights through the whole path: a raw Qwen-1 directory, `serve`, and clients.

The reference is plain transformers on the same weights in the Qwen2 layout. POST / takes no
temperature 0; a tiny top_p leaves one candidate, which is greedy too.
"""

import asyncio
import re
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial

import aiohttp
import pytest
import pytest_asyncio
import torch
from openai import AsyncOpenAI, OpenAI
from transformers import AutoModelForCausalLM

from qwen_openai.core import Message
from qwen_openai.engines.factory import create_engine
from qwen_openai.models.checkpoint import read_checkpoint, tokenizer_file
from qwen_openai.prompting.qwen1 import Qwen1Renderer
from tests.cli.program import PROGRAM, environment
from tests.live import Live, call, live, make_settings, until
from tests.models.qwen1.real_fixture import real_native, real_qwen1

pytestmark = pytest.mark.real

_FLAGS = ("--engine", "qwen_chat", "--port", "0", "--context", "1024")
PENALTY = 1.1  # what a request that says nothing gets of Qwen-1
LIMIT = 24
CHINESE = (Message("user", "你好"),)
ITALY = (
    Message("user", "What is the capital of France?"),
    Message("assistant", "Paris."),
    Message("user", "And of Italy?"),
)


@dataclass(frozen=True, slots=True)
class Plain:
    """An answer of stock transformers, greedy, and the lengths of prompt and answer in tokens."""

    text: str
    prompt: int
    completion: int


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Message, ...], Plain]:
    """What stock transformers answers to the conversations of this module."""
    home = tmp_path_factory.mktemp("home")
    renderer = Qwen1Renderer.load(tokenizer_file(read_checkpoint(real_qwen1()), home))
    model = AutoModelForCausalLM.from_pretrained(real_native(), dtype=torch.float32)
    stops = [renderer.token_id(t) for t in ("<|im_end|>", "<|im_start|>", "<|endoftext|>")]
    answers: dict[tuple[Message, ...], Plain] = {}
    conversations: tuple[tuple[Message, ...], ...] = (CHINESE, ITALY)
    for messages in conversations:
        prompt = renderer.render(messages)
        made = model.generate(  # type: ignore[misc]  # its self is typed as no class of theirs is
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=PENALTY,
            max_new_tokens=LIMIT,
            eos_token_id=stops,
            pad_token_id=stops[-1],
        )[0][len(prompt) :].tolist()
        text = renderer.decode([token for token in made if token not in stops])
        assert made[-1] in stops, text
        answers[messages] = Plain(text, len(prompt), len(made))
    return answers


@dataclass(frozen=True, slots=True)
class Served:
    """`qwen-openai serve` on the raw directory, and what it said until it was ready."""

    port: int
    panel: str
    stderr: list[str]
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    with subprocess.Popen(
        [PROGRAM, "serve", *_FLAGS, "--", str(real_qwen1())],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[str] = []
        reader = threading.Thread(target=said.extend, args=(process.stderr,))
        reader.start()
        panel = ""
        while panel.count("curl ") < 2:
            line = process.stdout.readline()
            assert line, (panel, said)
            panel += line
        found = re.search(r"http://\S+:(\d+)/v1\n", panel)
        assert found is not None
        yield Served(int(found[1]), panel, said, process)
        process.kill()
        reader.join()


def test_serve_says_what_it_loads_and_what_runs(served: Served) -> None:
    said = "".join(served.stderr)
    assert "brings Python code of its own" in said
    assert "never run here" in said
    assert "converted while they are loaded" in said
    rows = dict(re.findall(r"^  (\S.*?)  +(\S.*)$", served.panel, re.MULTILINE))
    assert rows["engine"] == "qwen_chat"
    assert rows["device"] == "CPU"
    assert rows["computes in"] == "float32"
    assert rows["layout"] == "Qwen-1, converted while loading"
    assert rows["context"] == "1,024 tokens, one answer at a time"
    assert rows["memory"].endswith(" GiB")


def test_the_openai_sdk_gets_plain_transformers_text(
    served: Served, plain: dict[tuple[Message, ...], Plain]
) -> None:
    with OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="x") as client:
        model = client.models.list().data[0].id
        for messages, wanted in plain.items():
            answer = client.chat.completions.create(
                model=model,
                messages=[{"role": m.role, "content": m.content} for m in messages],  # type: ignore[misc]  # by role
                temperature=0,
                max_tokens=LIMIT,
            )
            assert answer.choices[0].message.content == wanted.text
            assert answer.choices[0].finish_reason == "stop"
            assert answer.usage is not None
            assert answer.usage.prompt_tokens == wanted.prompt
            assert answer.usage.completion_tokens == wanted.completion
            with client.chat.completions.stream(
                model=model,
                messages=[{"role": m.role, "content": m.content} for m in messages],  # type: ignore[misc]  # by role
                temperature=0,
            ) as stream:
                assert stream.get_final_completion().choices[0].message.content == wanted.text


def test_the_tutorials_route_gets_plain_transformers_text(
    served: Served, plain: dict[tuple[Message, ...], Plain]
) -> None:
    body: dict[str, object] = {"prompt": "你好", "history": [], "top_p": 1e-9}
    wanted = plain[CHINESE].text
    answer = call(served.port, "POST", "/", body).json()
    assert answer["response"] == wanted
    assert answer["history"] == [["你好", wanted]]
    assert answer["status"] == 200
    pair = [ITALY[0].content, ITALY[1].content]
    body |= {"prompt": ITALY[2].content, "history": [pair], "temperature": 0.3}
    answer = call(served.port, "POST", "/", body).json()
    assert answer["response"] == plain[ITALY].text
    assert answer["history"] == [pair, [ITALY[2].content, plain[ITALY].text]]


def test_the_tutorials_max_length_is_prompt_and_answer(
    served: Served, plain: dict[tuple[Message, ...], Plain]
) -> None:
    wanted = plain[CHINESE]
    body: dict[str, object] = {"prompt": "你好", "top_p": 1e-9}
    cut = call(served.port, "POST", "/", {**body, "max_length": wanted.prompt + 2})
    assert wanted.text.startswith(cut.json()["response"])
    assert 0 < len(cut.json()["response"]) < len(wanted.text)
    refused = call(served.port, "POST", "/", {**body, "max_length": wanted.prompt})
    assert refused.status == 400
    assert refused.json()["error"]["param"] == "prompt"


def test_tools_are_taken_and_the_last_signal_ends_it(served: Served) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body = {
        "model": call(served.port, "GET", "/v1/models").json()["data"][0]["id"],
        "messages": [{"role": "user", "content": "Call f."}],
        "tools": [tool],
        "temperature": 0,
        "max_tokens": 4,
    }
    assert call(served.port, "POST", "/v1/chat/completions", body).status == 200
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Live]:
    engine = create_engine(
        make_settings(engine="qwen_chat", context=1024), read_checkpoint(real_qwen1())
    )
    async with live(engine) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
async def test_eight_clients_are_answered_in_order_and_none_mixed(server: Live) -> None:
    words = ("banana", "elephant", "guitar", "volcano", "camel", "teacher", "window", "silver")
    admission = server.gateway.default()[1].service.admission
    done: list[str] = []
    texts: dict[str, str] = {}
    health = 0

    def arrived(count: int) -> bool:
        return admission.running + admission.waiting + len(done) >= count

    async def ask(client: AsyncOpenAI, word: str) -> None:
        answer = await client.chat.completions.create(
            model=server.gateway.model_names[0],
            messages=[{"role": "user", "content": f"Repeat this word: {word}"}],
            temperature=0,
            max_tokens=8,
        )
        done.append(word)
        texts[word] = (answer.choices[0].message.content or "").lower()

    async with (
        AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client,
        aiohttp.ClientSession() as session,
    ):
        tasks = []
        for number, word in enumerate(words, start=1):
            tasks.append(asyncio.create_task(ask(client, word)))
            # They come one after the other, while the first is still being answered.
            await until(partial(arrived, number))
        assert len(done) < 2
        while len(done) < len(words):
            async with session.get(f"{server.url}/health/live") as response:
                assert response.status == 200
            health += 1
            await asyncio.sleep(0.05)
        await asyncio.gather(*tasks)
    assert done == list(words)
    for word, text in texts.items():
        assert word in text
        assert not any(other in text for other in words if other != word)
    # It was asked all the time, and the model took some seconds: it never waited for an answer.
    assert health > len(words)


@pytest.mark.asyncio(loop_scope="module")
async def test_who_leaves_frees_the_slot_within_a_token(server: Live) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=server.gateway.model_names[0],
            messages=[{"role": "user", "content": "Tell a very long story. Never stop."}],
            stream=True,
            temperature=0,
        )
        await anext(aiter(stream))
        await stream.close()
        admission = server.gateway.default()[1].service.admission
        # Ten seconds would make some fifty tokens; the answer may have almost a thousand.
        await until(lambda: admission.running == 0)
        answer = await client.chat.completions.create(
            model=server.gateway.model_names[0],
            messages=[{"role": "user", "content": "你好"}],
            max_tokens=2,
        )
        assert answer.usage is not None
