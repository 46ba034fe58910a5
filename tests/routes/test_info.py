"""The small GET endpoints of a gateway in front of mocks: who sees which names, and what is told
of models that run elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from qwen_openai.gateway.keys import Key, digest_of
from tests.live import Answer, Live, call
from tests.upstream.fronted import fronted
from tests.upstream.process import Mock, mocks


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with mocks("a") as (made,):
        yield made


@pytest.fixture
async def server(mock: Mock) -> AsyncIterator[Live]:
    async with fronted([mock], aliases={"gpt-4o": "m", "gone": "nothing"}) as running:
        keys = {
            "any": Key(id="1", name="any"),
            "alias": Key(id="2", name="alias", models=("gpt-4o",)),
            "none": Key(id="3", name="none", models=("other",)),
        }
        running.gateway.keys.replace(
            (digest_of(secret.encode()), key) for secret, key in keys.items()
        )
        yield running


async def _get(server: Live, path: str, key: str) -> Answer:
    headers = {"authorization": f"Bearer {key}"}
    return await asyncio.to_thread(call, server.port, "GET", path, headers=headers)


@pytest.mark.parametrize(
    ("key", "names"), [("any", ["m", "gpt-4o"]), ("alias", ["gpt-4o"]), ("none", [])]
)
async def test_a_key_sees_the_names_that_it_may_use(
    server: Live, key: str, names: list[str]
) -> None:
    listed = (await _get(server, "/v1/models", key)).json()["data"]
    assert [model["id"] for model in listed] == names
    for name in ("m", "gpt-4o", "gone"):
        answer = await _get(server, f"/v1/models/{name}", key)
        assert answer.status == (200 if name in names else 404)


async def test_what_is_told_of_a_model_elsewhere(server: Live) -> None:
    told = (await _get(server, "/v1/capabilities?model=gpt-4o", "alias")).json()
    assert (told["model"], told["engine"], told["handed_on"]) == ("gpt-4o", "upstream", True)
    assert told["sampling_defaults"] is None  # those of the server that holds it
    assert (await _get(server, "/v1/capabilities?model=m", "alias")).status == 404
    assert (await _get(server, "/v1/capabilities", "alias")).json()["model"] == "gpt-4o"


async def test_readiness_names_no_address(server: Live, mock: Mock) -> None:
    ready = await asyncio.to_thread(call, server.port, "GET", "/health/ready")
    assert ready.status == 200
    assert str(mock.port) not in ready.body.decode()
