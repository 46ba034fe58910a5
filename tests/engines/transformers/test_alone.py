"""A batch changes nobody's answer: the real model in float32 beside plain transformers, alone.

Sixteen requests of many kinds come and go while others are on their way. Each greedy one has the
tokens that `model.generate` of stock transformers makes of its prompt alone, each seeded one those
that it has with nobody beside it. The prompts are such that no two tokens are nearly as likely.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)

from qwen_openai.core import Finish, Grammar, Job, Message, Sampling, Text
from qwen_openai.engines.base import Engine
from qwen_openai.engines.factory import create_engine
from qwen_openai.engines.masks import TokenMask, TokenMasks
from qwen_openai.grammars import build
from qwen_openai.models.checkpoint import read_checkpoint, tokenizer_file
from qwen_openai.prompting.bpe import Bpe
from tests.engines.contract import collect, finish_of, text_of
from tests.live import make_settings
from tests.models.qwen1.real_fixture import real_native

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

RULES = build.choice(["a red apple", "a green pear", "a yellow banana"])
# Longer than what is read in one step.
LONG = "Here are numbers: " + ", ".join(str(7919 * n % 1000) for n in range(60)) + ". Sum them."
CUT_AFTER = 4


@dataclass(frozen=True, slots=True)
class Case:
    """A request. ``plain`` is what `generate` is to be told of it, beside its length; a case
    ``leaves`` when its reader goes in the middle."""

    text: str
    limit: int
    sampling: dict[str, object] = field(default_factory=dict)
    plain: dict[str, object] = field(default_factory=dict)
    rules: str = ""
    leaves: bool = False

    @property
    def is_greedy(self) -> bool:
        return "seed" not in self.sampling

    def job(self) -> Job:
        values = {"temperature": 0.0, "max_tokens": self.limit, **self.sampling}
        return Job(
            "job",
            "model",
            (Message("user", self.text),),
            Sampling(**values),  # type: ignore[arg-type]  # named by the cases
            grammar=Grammar(self.rules, "response_format") if self.rules else None,
        )


SEEDED: dict[str, object] = {"temperature": 1.1, "seed": 11}
CASES = {
    "short": Case("Say hello.", 24),
    "code": Case("Write a Python function that adds two numbers.", 24),
    "leaves": Case("Tell a long story about a river.", 24, leaves=True),
    "grammar": Case("Name a fruit and its colour.", 24, rules=RULES),
    "sampled": Case("Write a poem about the sea.", 10, {**SEEDED, "top_p": 0.9}),
    "logprobs": Case("What is the capital of France?", 12, {"logprobs": 5}),
    "long": Case(LONG, 10),
    "repeats": Case(
        "Repeat the word tree ten times.",
        16,
        {"repetition_penalty": 1.2},
        {"repetition_penalty": 1.2},
    ),
    "same": Case("Write a Python function that adds two numbers.", 12),
    "chinese": Case("用中文介绍一下北京。", 16),
    "filtered": Case("Tell a joke.", 10, {**SEEDED, "top_k": 20, "min_p": 0.02}),
    "one": Case("What is 2 + 2?", 1),
    "least": Case("Say hi.", 16, {"min_tokens": 14}, {"min_new_tokens": 14}),
    "penalised": Case("Count from one.", 10, {**SEEDED, "presence_penalty": 0.5, "logprobs": 1}),
    "json": Case('Write {"a": 1} as YAML.', 14),
    "last": Case("Translate 'good morning' to German.", 14),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    settings = make_settings(engine="transformers", context=512, slots=len(CASES))
    engine = create_engine(settings, read_checkpoint(real_native()))
    await engine.start()
    yield engine
    await engine.aclose()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: the text, the tokens, why it ended (None where nobody waited for it)."""

    text: str
    tokens: int | None
    reason: str | None


class Batch:
    """Requests that begin one after the other, each when the one before the last shows a token."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running = 0
        self.peak = 0
        self._begun = {name: asyncio.Event() for name in CASES}

    async def answers(self) -> dict[str, Answer]:
        names = list(CASES)
        made = await asyncio.gather(
            *(
                self._one(name, before)
                for before, name in zip([None, None, *names], names, strict=False)
            )
        )
        return dict(zip(names, made, strict=True))

    async def _one(self, name: str, before: str | None) -> Answer:
        if before is not None:
            await self._begun[before].wait()
        self._running += 1
        self.peak = max(self.peak, self._running)
        try:
            return await self._read(name)
        finally:
            self._running -= 1
            self._begun[name].set()

    async def _read(self, name: str) -> Answer:
        case, text, pieces = CASES[name], "", 0
        async with aclosing(self._engine.generate(case.job())) as events:
            async for event in events:
                if isinstance(event, Text):
                    text += event.text
                    pieces += 1
                elif isinstance(event, Finish):
                    return Answer(text, event.completion_tokens, event.reason)
                if pieces == 1:
                    self._begun[name].set()
                if case.leaves and pieces == CUT_AFTER:
                    break
        return Answer(text, None, None)


async def _alone(engine: Engine, case: Case) -> Answer:
    events = await collect(engine, case.job())
    return Answer(text_of(events), finish_of(events).completion_tokens, finish_of(events).reason)


class _Held(LogitsProcessor):
    """Holds an answer of `generate` to a grammar."""

    def __init__(self, mask: TokenMask, prompt: int) -> None:
        self._mask, self._seen = mask, prompt

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        for token in input_ids[0, self._seen :].tolist():
            self._mask.take(token)
        self._seen = input_ids.shape[1]
        allowed = torch.tensor(list(self._mask.allowed())) != 0
        scores[:, ~allowed] = -torch.inf
        return scores


class Plain:
    """Stock transformers on the same weights, with nothing of ours but the prompt's ids."""

    def __init__(self) -> None:
        checkpoint = read_checkpoint(real_native())
        model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
        assert isinstance(model, PreTrainedModel)
        self._model = model
        self._bpe = Bpe(tokenizer_file(checkpoint, None))
        stated = model.generation_config.eos_token_id
        self._ends = [stated] if isinstance(stated, int) else list(stated or [])
        # What a call leaves open would be filled in from it: a repetition penalty, say.
        model.generation_config = GenerationConfig.from_dict({})

    def answer(self, prompt: list[int], case: Case) -> Answer:
        held = LogitsProcessorList()
        if case.rules:
            masks = TokenMasks(self._bpe, self._model.config.vocab_size, self._ends)
            held.append(_Held(masks.start(build.whole(case.rules, "none")), len(prompt)))
        wanted = {
            "do_sample": False,
            "max_new_tokens": case.limit,
            "eos_token_id": self._ends,
            "pad_token_id": self._ends[0],
            **case.plain,
        }
        made = self._model.generate(  # type: ignore[misc]  # its self is typed as no class of theirs
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            generation_config=GenerationConfig.from_dict(wanted),
            logits_processor=held,
        )
        ids: list[int] = torch.as_tensor(made)[0, len(prompt) :].tolist()
        raw = b"".join(self._bpe.piece(one) for one in ids if one not in self._ends)
        # The limit may cut a character, of which nothing is sent.
        text = raw.decode(errors="ignore")
        return Answer(text, len(ids), "stop" if ids[-1] in self._ends else "length")


async def test_each_of_sixteen_has_the_answer_that_it_has_alone(engine: Engine) -> None:
    batch = Batch(engine)
    answers = await batch.answers()
    assert batch.peak >= 8
    alone = {n: await _alone(engine, case) for n, case in CASES.items() if not case.is_greedy}
    prompts = {name: await engine.tokenize(case.job()) for name, case in CASES.items()}
    plain = Plain()
    for name, case in CASES.items():
        if case.is_greedy:
            alone[name] = await asyncio.to_thread(plain.answer, prompts[name], case)
    for name, case in CASES.items():
        if case.leaves:
            assert answers[name].text
            assert alone[name].text.startswith(answers[name].text)
        else:
            assert answers[name] == alone[name], name
