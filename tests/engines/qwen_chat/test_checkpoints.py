"""From settings and a directory to an engine: what is loaded, what is refused, what it keeps."""

from pathlib import Path

import pytest

from qwen_openai.core import Sampling
from qwen_openai.engines.base import Engine
from qwen_openai.engines.factory import create_engine
from qwen_openai.engines.qwen_chat.engine import QwenChatEngine
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import Checkpoint, read_checkpoint
from tests.engines.contract import collect, finish_of, job
from tests.live import make_settings


def _engine(files: Checkpoint, **values: object) -> Engine:
    return create_engine(make_settings(engine="qwen_chat", **values), files)


async def test_the_settings_reach_the_model(qwen2_folder: Path) -> None:
    files = read_checkpoint(qwen2_folder, "org/tiny")
    engine = _engine(files, context=384, dtype="bfloat16", device_map="cpu", default_max_tokens=3)
    assert isinstance(engine, QwenChatEngine)
    await engine.start()
    try:
        info = engine.info()
        assert (info.model, info.context, info.family) == ("org/tiny", 384, "")
        assert dict(info.facts)["computes in"] == "bfloat16"
        assert (finish_of(await collect(engine, job("q")))).completion_tokens == 3
    finally:
        await engine.aclose()


async def test_qwen_1_as_published_and_converted_answer_alike(
    golden: Path, converted_folder: Path, qwen_home: Path
) -> None:
    """Unasked they keep to what they were trained for, 256 tokens here; asked, they go on."""
    answers = []
    for folder in (golden / "checkpoint", converted_folder):
        for context in (None, 512):
            engine = _engine(read_checkpoint(folder), context=context, home=qwen_home)
            await engine.start()
            try:
                assert engine.info().family == "qwen1"
                assert engine.info().context == (context or 256)
                answers.append(
                    await collect(engine, job("你好", Sampling(temperature=0, max_tokens=8)))
                )
            finally:
                await engine.aclose()
    assert all(answer == answers[0] for answer in answers)


def test_more_than_one_answer_is_refused_before_it_loads(qwen2_folder: Path) -> None:
    with pytest.raises(StartupError, match="one answer at a time; 2 slots") as caught:
        _engine(read_checkpoint(qwen2_folder), slots=2)
    assert "the engine transformers makes many" in caught.value.fix


async def test_more_context_than_the_model_has_is_refused(qwen2_folder: Path) -> None:
    engine = _engine(read_checkpoint(qwen2_folder), context=2048)
    with pytest.raises(StartupError, match="can hold 512 tokens; 2,048 were") as caught:
        await engine.start()
    assert caught.value.fix == "Give --context 512 or less."


async def test_a_card_that_is_not_there_is_refused(qwen2_folder: Path) -> None:
    engine = _engine(read_checkpoint(qwen2_folder), device_map="cuda:77")
    with pytest.raises(StartupError, match="cuda:77"):
        await engine.start()
