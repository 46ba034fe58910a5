"""From settings and a directory to an engine: what is loaded, what is refused, what it keeps."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from qwen_openai.core import Sampling
from qwen_openai.engines import factory
from qwen_openai.engines.factory import create_engine, notes
from qwen_openai.engines.qwen_chat.engine import QwenChatEngine
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import read_checkpoint
from qwen_openai.models.describe import Description
from qwen_openai.models.store import ModelFiles
from tests.engines.contract import collect, finish_of, job
from tests.live import make_settings


async def test_the_settings_reach_the_model(qwen2_folder: Path) -> None:
    settings = make_settings(context=384, dtype="bfloat16", device_map="cpu", default_max_tokens=3)
    engine = create_engine(settings, read_checkpoint(qwen2_folder, "org/tiny"))
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
            settings = make_settings(context=context, home=qwen_home)
            engine = create_engine(settings, read_checkpoint(folder))
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


@pytest.mark.parametrize(
    ("wanted", "message", "fix"),
    [
        ({"engine": "llamacpp"}, "runs GGUF files", "Leave --engine out"),
        ({"slots": 2}, "one answer at a time; 2 slots", "Leave --slots out"),
    ],
)
def test_what_the_engine_cannot_do_is_said_before_it_loads(
    qwen2_folder: Path, wanted: Mapping[str, object], message: str, fix: str
) -> None:
    with pytest.raises(StartupError, match=message) as caught:
        create_engine(make_settings(**wanted), read_checkpoint(qwen2_folder))
    assert fix in caught.value.fix


async def test_more_context_than_the_model_has_is_refused(qwen2_folder: Path) -> None:
    engine = create_engine(make_settings(context=2048), read_checkpoint(qwen2_folder))
    with pytest.raises(StartupError, match="can hold 512 tokens; 2,048 were") as caught:
        await engine.start()
    assert caught.value.fix == "Give --context 512 or less."


async def test_a_card_that_is_not_there_is_refused(qwen2_folder: Path) -> None:
    engine = create_engine(make_settings(device_map="cuda:77"), read_checkpoint(qwen2_folder))
    with pytest.raises(StartupError, match="cuda:77"):
        await engine.start()


def test_a_gguf_is_not_for_this_engine() -> None:
    files = ModelFiles("m", Path("m.gguf"), Path("t"), Description("m", "q", 1, 1, 1, "", None))
    with pytest.raises(StartupError, match="m is a GGUF file"):
        create_engine(make_settings(engine="qwen_chat"), files)
    assert notes(make_settings(), files) == []
    assert notes(make_settings(dtype="float16"), files) == [
        "dtype has no effect on the engine llamacpp, which runs this model."
    ]


def test_a_missing_library_is_one_sentence_with_the_commands(
    qwen2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"torch": None, "transformers": object()}
    monkeypatch.setattr(factory, "find_spec", lambda name: known.get(name, object()))
    with pytest.raises(StartupError, match="needs torch, which is not installed") as caught:
        create_engine(make_settings(), read_checkpoint(qwen2_folder, "Qwen/Qwen-7B-Chat"))
    assert caught.value.fix == (
        "`pip install torch==2.13.0`, then `pip install 'qwen-openai[transformers]'`; "
        "`scripts/serve Qwen/Qwen-7B-Chat` does both."
    )


def test_code_that_comes_with_a_checkpoint_is_said_not_to_run(
    qwen2_folder: Path, tmp_path: Path
) -> None:
    assert notes(make_settings(), read_checkpoint(qwen2_folder, "tiny")) == [
        "tiny: 0.0 GB of weights in float32, as they are."
    ]
    for file in qwen2_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((qwen2_folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").unlink()
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    first, _ = notes(make_settings(), read_checkpoint(tmp_path, "tiny"))
    assert first == (
        "tiny brings Python code of its own (auto_map in its config.json). That is never run here: "
        "its weights are read, without it."
    )
