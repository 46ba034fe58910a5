"""Prompts that are no conversation, and the engine's word on tokens, beside its answers."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from qwen_openai import QwenChat
from qwen_openai.core import Message, RawPrompt, Sampling, Tool
from qwen_openai.engines.qwen_chat.engine import QwenChatEngine
from qwen_openai.errors import EngineUnavailable, InvalidRequest, UnsupportedParameter
from tests.engines.contract import collect, job, started_of
from tests.engines.qwen_chat.original import Letters, Original
from tests.engines.qwen_chat.scripted import Scripted
from tests.engines.qwen_chat.test_rules import serving

TOOL = Tool("f", "", {"type": "object"})


class Marked(Letters):
    """Letters that know the marks around turns, and tell bytes as the original's tokenizer does."""

    def encode(
        self, text: str, allowed_special: object = "all", disallowed_special: object = ()
    ) -> list[int]:
        marks = {"<|im_start|>": 2**21, "<|im_end|>": 2**21 + 1}
        if allowed_special == "all":
            return [marks[text]]
        return super().encode(text, allowed_special, disallowed_special)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[bytes | str]:
        if min(ids) < 0:
            raise ValueError(ids)
        return ["<|im_end|>" if n > 2**21 else chr(n).encode() for n in ids]


class Plain(Letters):
    """Letters that have no token for a mark, and tell of no bytes."""

    def encode(
        self, text: str, allowed_special: object = "all", disallowed_special: object = ()
    ) -> list[int]:
        return super().encode(text, set(), disallowed_special)


async def test_the_ids_of_a_prompt_are_those_that_are_answered(qwen2: QwenChat) -> None:
    async with serving(qwen2) as engine:
        for wanted in (job("hello world"), replace(job(), prompt=RawPrompt("a <|im_end|> b"))):
            ids = await engine.tokenize(wanted)
            sampling = Sampling(temperature=0.0, max_tokens=1)
            events = await collect(engine, replace(wanted, sampling=sampling))
            assert started_of(events).prompt_tokens == len(ids)
        assert ids.count(qwen2.renderer.token_id("<|im_end|>") or 0) == 1
        assert b"".join(await engine.detokenize(ids)) == b"a <|im_end|> b"
        given = replace(job(), prompt=RawPrompt(tuple(ids)))
        assert await engine.tokenize(given) == ids


async def test_a_prompt_longer_than_the_context_is_still_counted(qwen2: QwenChat) -> None:
    async with serving(qwen2) as engine:
        ids = await engine.tokenize(job("word " * 2000))
        assert len(ids) > 2 * engine.info().context


async def test_a_first_generations_prompt_is_told_as_pairs() -> None:
    model = Scripted()
    async with serving(model) as engine:  # type: ignore[arg-type]  # a stand-in for QwenChat
        wanted = replace(job("q"), messages=(Message("user", "a"), Message("user", "b")))
        ids = await engine.tokenize(wanted)
        events = await collect(engine, wanted)
    assert started_of(events).prompt_tokens == len(ids)
    assert "a" in model.prompts[0]


async def test_an_id_that_is_none_is_refused(qwen2: QwenChat) -> None:
    async with serving(qwen2) as engine:
        for number in (-1, 10**6, 2**70):
            with pytest.raises(InvalidRequest) as caught:
                await engine.detokenize([1, number])
            assert caught.value.param == "tokens"
        assert await engine.detokenize([]) == []


async def test_tokens_are_told_while_an_answer_goes_on(qwen2: QwenChat) -> None:
    async with (
        serving(qwen2) as engine,
        aclosing(engine.generate(job("hello", Sampling(max_tokens=300)))) as events,
    ):
        await anext(events)
        async with asyncio.timeout(20):
            assert await engine.tokenize(job("hello"))


async def test_before_and_after_its_time_an_engine_tells_nothing(qwen2: QwenChat) -> None:
    engine = QwenChatEngine.of(qwen2, name="m")
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            await engine.tokenize(job())
        with pytest.raises(EngineUnavailable):
            await engine.detokenize([1])
        await engine.start()
        await engine.aclose()


async def test_info_tells_what_prompts_can_do(qwen1: QwenChat, qwen2: QwenChat) -> None:
    for model, tools in ((qwen1, "react"), (qwen2, None)):
        async with serving(model) as engine:
            info = engine.info()
        assert (info.tools, info.thinking, info.fills_in) == (tools, "never", False)
        assert not info.refuses


async def test_a_foreign_model_tells_its_tokens_where_its_tokenizer_does() -> None:
    for tokenizer in (Marked(), Plain()):
        engine = QwenChatEngine.of(Original(), tokenizer, name="m", context=4096)
        await engine.start()
        try:
            if isinstance(tokenizer, Marked):
                ids = await engine.tokenize(job("hé"))
                assert ids.count(2**21) == 3
                assert ids[-len("assistant\n") - 1] == 2**21
                assert await engine.detokenize([104, 233, 2**21 + 1]) == [
                    b"h",
                    "é".encode(),
                    b"<|im_end|>",
                ]
                with pytest.raises(InvalidRequest):
                    await engine.detokenize([-1])
            else:
                with pytest.raises(InvalidRequest):
                    await engine.tokenize(job("h"))
                with pytest.raises(InvalidRequest):
                    await engine.detokenize([1])
            with pytest.raises(UnsupportedParameter) as caught:
                await engine.tokenize(replace(job(), prompt=RawPrompt("a")))
            assert caught.value.param == "prompt"
        finally:
            await engine.aclose()
