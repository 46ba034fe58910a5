"""LangChain's own standard tests of a chat model, with `ChatOpenAI` on the embedded model.

Their requests and their judgement are LangChain's; here stand only what is tried, with what, and
which of them a model this small fails by wit. Those are done again below with enforcement.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.integration_tests.chat_models import magic_function_no_args
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient
from pydantic import BaseModel, Field

from tests.live import Live, threaded
from tests.real import MODEL, real_engine

pytestmark = [
    pytest.mark.real,
    # LangChain serializes the SDK's parsed answer by the class of an unparsed one, with any server.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    # The tests hand over a class of pydantic 1 on purpose; ChatOpenAI says how it takes it.
    pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning"),
    # test_stream_time asks for the fixture that times, and uses it for recordings only.
    pytest.mark.filterwarnings("ignore:Benchmark fixture was not used"),
]

ALIAS = "Qwen/Qwen2.5-Coder-0.5B-Instruct"


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(real_engine, served_model_name=(MODEL, ALIAS)) as running:
        yield running


def parameters(server: Live) -> dict[str, Any]:  # what pydantic reads, by LangChain's own names
    return {
        "base_url": server.base_url,
        "api_key": "unused",
        "model": MODEL,
        "temperature": 0,
        "max_tokens": 100,
        "max_retries": 0,
        "timeout": 100,
        "stream_usage": True,
    }


@asynccontextmanager
async def connected(server: Live, **values: object) -> AsyncIterator[ChatOpenAI]:
    """A model with connections of its own: ChatOpenAI else keeps a pool for the whole process,
    which does not outlive a test's event loop."""
    with DefaultHttpxClient() as client:
        async with DefaultAsyncHttpxClient() as async_client:
            clients = {"http_client": client, "http_async_client": async_client}
            yield ChatOpenAI(**{**parameters(server), **clients, **values})


@pytest.fixture
async def chat(server: Live) -> AsyncIterator[ChatOpenAI]:
    async with connected(server) as model:
        yield model


class TestStandard(ChatModelIntegrationTests):
    server: Live

    @pytest.fixture(autouse=True)
    def _served(self, server: Live) -> None:
        self.server = server

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return parameters(self.server)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @pytest.fixture
    async def model(self, request: pytest.FixtureRequest) -> AsyncIterator[BaseChatModel]:
        """What every test is given; a test's parameter is more of what it is made of."""
        async with connected(self.server, **getattr(request, "param", {})) as model:
            yield model

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return ALIAS

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    @pytest.fixture
    def vcr(self) -> SimpleNamespace:
        """No recording: the test that would time a replayed one asks the server itself."""
        return SimpleNamespace(responses=[])

    @pytest.mark.xfail(
        reason="The model's wit: it writes the tool's schema as its arguments, and several calls. "
        "Both fit a tool that is not strict; test_no_arguments_when_strict holds it to one."
    )
    def test_tool_calling_with_no_arguments(self, model: BaseChatModel) -> None:
        super().test_tool_calling_with_no_arguments(model)


def test_no_arguments_when_strict(chat: ChatOpenAI) -> None:
    bound = chat.bind_tools(
        [magic_function_no_args], tool_choice="any", strict=True, parallel_tool_calls=False
    )
    query = "What is the value of magic_function_no_args()? Use the tool."
    answer = bound.invoke(query)
    streamed = merged(bound.stream(query))
    for message in (answer, streamed):
        assert isinstance(message, AIMessage)
        (made,) = message.tool_calls
        assert (made["name"], made["args"]) == ("magic_function_no_args", {})
        assert made["id"]


def merged(chunks: Iterator[AIMessage]) -> AIMessageChunk:
    """What LangChain makes of a stream."""
    first, *others = [chunk for chunk in chunks if isinstance(chunk, AIMessageChunk)]
    return first + others


class Joke(BaseModel):
    """Joke to tell user."""

    setup: str = Field(description="question to set up a joke")
    punchline: str = Field(description="answer to resolve the joke")


async def test_structure_by_a_call_or_by_a_schema(chat: ChatOpenAI) -> None:
    for method in ("function_calling", "json_schema"):
        bound = chat.with_structured_output(Joke, method=method, strict=True)
        assert isinstance(await bound.ainvoke("Tell me a joke about cats."), Joke)
        *_, last = [chunk async for chunk in bound.astream("Tell me a joke about cats.")]
        assert isinstance(last, Joke)
