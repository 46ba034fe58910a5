"""The llama.cpp engine honours whole jobs, on the real model; what it cannot do it refuses."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from qwen_openai.engines.base import Engine
from qwen_openai.engines.llamacpp import LlamaCppEngine
from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.grammars import build
from tests.engines.conftest import MakeEngine, Running
from tests.engines.contract import collect, finish_of, text_of
from tests.engines.wishes import GrammarContract, TokenContract, bound, id_of, texts_of, wish

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

END = 151645  # <|im_end|>


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(running: Running) -> AsyncIterator[LlamaCppEngine]:
    async with running() as engine:
        yield engine


class TestTokens(TokenContract):
    @pytest.fixture
    def unstarted(self, make_engine: MakeEngine) -> Engine:
        return make_engine()


class TestGrammars(GrammarContract):
    pass


async def test_it_tells_what_its_model_can_do(engine: LlamaCppEngine) -> None:
    info = engine.info()
    assert (info.tools, info.thinking, info.fills_in) == ("hermes", "never", True)
    assert info.refuses == frozenset()


async def test_the_tokens_of_one_character_share_a_logprob(engine: LlamaCppEngine) -> None:
    wanted = bound("Hello!", build.choice(["🦜🦥🦙"]), logprobs=2)
    texts = texts_of(await collect(engine, wanted))
    assert text_of(list(texts)) == "🦜🦥🦙"
    joined = [event for event in texts if event.tokens > 1]
    assert joined
    for event in joined:
        (token,) = event.logprobs
        assert token.raw == event.text.encode()
        assert len(token.top) == 2


async def test_a_ban_leaves_the_odds_as_they_were(engine: LlamaCppEngine) -> None:
    first = texts_of(await collect(engine, wish(logprobs=3, max_tokens=1)))[0].logprobs[0]
    number = await id_of(engine, first.text)
    banned = wish(logprobs=3, max_tokens=1, logit_bias=((number, -100.0),), ignore_eos=True)
    again = texts_of(await collect(engine, banned))[0].logprobs[0]
    assert again.top == first.top


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_seed_repeats_whatever_is_asked(engine: LlamaCppEngine, seed: int) -> None:
    rules = build.regex("[a-z]{12}")
    for wanted in (
        bound("Hello!", rules, temperature=1.5, seed=seed, logprobs=1),
        wish(min_tokens=8, temperature=1.5, seed=seed, logprobs=1),
    ):
        assert await collect(engine, wanted) == await collect(engine, wanted)


async def test_a_least_length_keeps_to_the_plain_answer(engine: LlamaCppEngine) -> None:
    plain = text_of(await collect(engine, wish("Repeat only this: 🦜🦥🦙🦜🦥🦙")))
    assert (
        text_of(await collect(engine, wish("Repeat only this: 🦜🦥🦙🦜🦥🦙", min_tokens=8)))
        == plain
    )


async def test_an_end_that_the_caller_names_ends_what_ignores_others(
    engine: LlamaCppEngine,
) -> None:
    wanted = wish("Say hello.", ignore_eos=True, stop_token_ids=(END,), max_tokens=60)
    assert finish_of(await collect(engine, wanted)).reason == "stop"


async def test_what_cannot_be_kept_is_refused_by_name(engine: LlamaCppEngine) -> None:
    rules = build.regex("[a-z]+")
    with pytest.raises(UnsupportedParameter) as caught:
        await collect(engine, bound("Hello!", rules, min_tokens=4))
    assert caught.value.param == "min_tokens"
    part = (await engine.tokenize(wish("🦜")))[-6:]
    broken = [number for number in part if not _is_text((await engine.detokenize([number]))[0])]
    with pytest.raises(UnsupportedParameter) as caught:
        await collect(engine, wish(stop_token_ids=(broken[0],)))
    assert caught.value.param == "stop_token_ids"
    with pytest.raises(InvalidRequest):
        await collect(engine, wish(logit_bias=((10**6, 1.0),)))


def _is_text(raw: bytes) -> bool:
    return "\ufffd" not in raw.decode(errors="replace")


async def test_usage_is_the_same_with_and_without_wishes(engine: LlamaCppEngine) -> None:
    plain = finish_of(await collect(engine, wish("Say hello.", max_tokens=60)))
    events = await collect(engine, wish("Say hello.", max_tokens=60, min_tokens=1, logprobs=0))
    assert finish_of(events) == plain
