"""Settings and files to an engine: which one, what is said of it, and what is refused at once."""

import json
from pathlib import Path

import pytest

from qwen_openai.engines import factory
from qwen_openai.engines.factory import create_engine, made_ready, notes
from qwen_openai.engines.fake import FakeEngine
from qwen_openai.engines.llamacpp import LlamaCppEngine
from qwen_openai.engines.qwen_chat.engine import QwenChatEngine
from qwen_openai.engines.transformers.engine import TransformersEngine
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import Checkpoint, read_checkpoint
from qwen_openai.models.describe import Description
from qwen_openai.models.progress import Untold
from qwen_openai.models.store import ModelFiles, PullOptions, pull
from tests.cli.program import environment, run
from tests.engines.tiny_model import write_native
from tests.live import make_settings
from tests.models.tiny_gguf import write_tiny_model

_GGUF = ModelFiles("m", Path("m.gguf"), Path("t"), Description("m", "q", 4096, 1, 1, "", None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_native(tmp_path_factory.mktemp("Qwen2-Tiny"), "qwen2")


@pytest.fixture
def native(folder: Path) -> Checkpoint:
    return read_checkpoint(folder, "tiny")


@pytest.fixture
def qwen1(shared: Path) -> Checkpoint:
    return read_checkpoint(shared / "golden" / "qwen1" / "checkpoint")


@pytest.mark.parametrize("model", ["native", "qwen1"])
@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("auto", TransformersEngine),
        ("transformers", TransformersEngine),
        ("qwen_chat", QwenChatEngine),
        ("fake", FakeEngine),
    ],
)
def test_a_directory_is_run_by_transformers_unless_another_is_asked_for(
    model: str, engine: str, kind: type, request: pytest.FixtureRequest
) -> None:
    files: Checkpoint = request.getfixturevalue(model)
    assert isinstance(create_engine(make_settings(engine=engine), files), kind)


@pytest.mark.parametrize("engine", ["auto", "llamacpp"])
def test_a_gguf_is_run_by_llamacpp(engine: str) -> None:
    settings = make_settings(engine=engine, context=512, slots=1)
    assert isinstance(create_engine(settings, _GGUF), LlamaCppEngine)


def test_llamacpp_runs_no_directory(native: Checkpoint) -> None:
    with pytest.raises(StartupError, match="runs GGUF files; tiny is a directory") as caught:
        create_engine(make_settings(engine="llamacpp"), native)
    assert "Leave --engine out" in caught.value.fix


async def test_transformers_runs_a_gguf_made_safetensors(tmp_path: Path) -> None:
    weights = write_tiny_model(tmp_path / "tiny.gguf")
    found = pull(str(weights), home=tmp_path, options=PullOptions(), progress=Untold())
    settings = make_settings(
        engine="transformers", home=tmp_path, context=256, slots=1, device_map="cpu"
    )
    assert made_ready(make_settings(), found, Untold()) is found
    ready = made_ready(settings, found, Untold())
    assert isinstance(ready, Checkpoint)
    assert notes(settings, ready)[-1].endswith(f"dequantised in {ready.folder}.")
    # Unready too: a program that knows nothing of it gets the same.
    engine = create_engine(settings, found)
    assert isinstance(engine, TransformersEngine)
    await engine.start()
    try:
        assert engine.info().model == "tiny"
    finally:
        await engine.aclose()


def test_qwen_chat_runs_no_gguf() -> None:
    with pytest.raises(StartupError, match="m is a GGUF file") as caught:
        create_engine(make_settings(engine="qwen_chat"), _GGUF)
    assert "Leave --engine out" in caught.value.fix


def test_nothing_to_run_is_said() -> None:
    with pytest.raises(StartupError, match="No model was given"):
        create_engine(make_settings(), None)


def test_more_slots_than_llamacpp_has_are_refused(native: Checkpoint) -> None:
    with pytest.raises(StartupError, match="64 slots at most; 65 were asked for") as caught:
        create_engine(make_settings(slots=65), _GGUF)
    assert "--slots 64" in caught.value.fix
    assert isinstance(create_engine(make_settings(slots=256), native), TransformersEngine)


@pytest.mark.parametrize("engine", ["transformers", "qwen_chat"])
@pytest.mark.parametrize("name", ["banana", "cuda:", "cuda:one", "0", "disk", "Auto"])
def test_a_device_map_that_is_none_is_refused_at_once(
    native: Checkpoint, name: str, engine: str
) -> None:
    with pytest.raises(StartupError, match=f"device map '{name}'") as caught:
        create_engine(make_settings(engine=engine, device_map=name), native)
    assert "--device-map auto" in caught.value.fix


@pytest.mark.parametrize("engine", ["transformers", "qwen_chat"])
@pytest.mark.parametrize("name", ["auto", "balanced_low_0", "cpu", "cuda", "cuda:12", "mps"])
def test_device_maps_of_accelerate_are_taken(native: Checkpoint, name: str, engine: str) -> None:
    create_engine(make_settings(engine=engine, device_map=name), native)


def test_batch_tokens_acts_where_it_was_given() -> None:
    assert "batch_tokens" not in make_settings().model_fields_set
    assert "batch_tokens" in make_settings(batch_tokens=128).model_fields_set


@pytest.mark.parametrize(
    ("engine", "without_effect"),
    [
        ("auto", "prompt_cache and prompt_cache_mib have no effect on the engine transformers"),
        (
            "qwen_chat",
            "prompt_cache, prompt_cache_mib, answer_timeout and on_engine_loss have no effect on"
            " the engine qwen_chat",
        ),
    ],
)
def test_settings_without_effect_on_a_directory_are_said(
    native: Checkpoint, engine: str, without_effect: str
) -> None:
    given = make_settings(
        engine=engine,
        prompt_cache=False,
        prompt_cache_mib=5,
        batch_tokens=64,
        answer_timeout=60,
        on_engine_loss="exit",
        device_map="cpu",
        dtype="float32",
    )
    assert notes(given, native)[0] == f"{without_effect}, which runs this model."
    # A file that `config --toml` wrote states the defaults too.
    stated = make_settings(engine=engine, prompt_cache=True, prompt_cache_mib=0)
    assert notes(stated, native) == ["tiny: 0.0 GB of weights in float32, as they are."]


def test_settings_without_effect_on_a_gguf_are_said() -> None:
    assert notes(make_settings(prompt_cache=False), _GGUF) == []
    assert notes(make_settings(dtype="float16"), _GGUF) == [
        "dtype has no effect on the engine llamacpp, which runs this model."
    ]


def test_the_layout_of_a_qwen_1_is_said(qwen1: Checkpoint) -> None:
    assert notes(make_settings(), qwen1)[-1].endswith(
        "in the Qwen-1 layout, converted while they are loaded."
    )


@pytest.mark.parametrize("engine", ["auto", "qwen_chat"])
def test_a_missing_library_is_one_sentence_with_the_commands(
    folder: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"torch": None, "transformers": object()}
    monkeypatch.setattr(factory, "find_spec", lambda name: known.get(name, object()))
    with pytest.raises(StartupError, match="needs torch, which is not installed") as caught:
        create_engine(make_settings(engine=engine), read_checkpoint(folder, "Qwen/Qwen-7B-Chat"))
    assert caught.value.fix == (
        "`pip install torch==2.13.0`, then `pip install 'qwen-openai[transformers]'`; "
        "`scripts/serve Qwen/Qwen-7B-Chat` does both."
    )


@pytest.mark.parametrize(
    ("error", "engine"),
    [("OSError", "auto"), ("ImportError", "auto"), ("AttributeError", "qwen_chat")],
)
def test_a_torch_that_does_not_import_is_said_to_be_broken(
    folder: Path, tmp_path: Path, error: str, engine: str
) -> None:
    (tmp_path / "torch.py").write_text(f"raise {error}('libcudart.so.12: cannot open it')")
    env = environment(tmp_path, PYTHONPATH=str(tmp_path))
    done = run("serve", "--port", "0", "--engine", engine, str(folder), env=env)
    assert done.returncode == 1
    assert f"does not work here: {error}: libcudart.so.12: cannot open it." in done.stderr
    assert "pip install --force-reinstall torch" in done.stderr
    assert "Traceback" not in done.stderr


def test_code_that_comes_with_a_checkpoint_is_said_not_to_run(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").unlink()
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    first, _ = notes(make_settings(), read_checkpoint(tmp_path, "tiny"))
    assert first == (
        "tiny brings Python code of its own (auto_map in its config.json). That is never run here: "
        "its weights are read, without it."
    )
