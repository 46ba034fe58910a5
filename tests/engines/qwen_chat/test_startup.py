"""From wishes to a model: devices that are refused, pieces of a prompt, what is told meanwhile."""

from pathlib import Path

import pytest

from qwen_openai.engines.factory import create_engine, notes
from qwen_openai.engines.qwen_chat.startup import Wishes, load_checkpoint
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import read_checkpoint
from tests.cli.program import environment, run
from tests.live import make_settings


@pytest.mark.parametrize("name", ["banana", "cuda:", "cuda:one", "0", "disk", "Auto"])
def test_a_device_map_that_is_none_is_refused_at_once(qwen2_folder: Path, name: str) -> None:
    with pytest.raises(StartupError, match=f"device map '{name}'") as caught:
        create_engine(make_settings(device_map=name), read_checkpoint(qwen2_folder))
    assert "--device-map auto" in caught.value.fix


@pytest.mark.parametrize("name", ["auto", "balanced_low_0", "cpu", "cuda", "cuda:12", "mps"])
def test_device_maps_of_accelerate_are_taken(qwen2_folder: Path, name: str) -> None:
    create_engine(make_settings(device_map=name), read_checkpoint(qwen2_folder))


def test_an_accelerator_that_is_not_there_is_refused(qwen2_folder: Path) -> None:
    with pytest.raises(StartupError, match="no device 'npu:0' here"):
        load_checkpoint(read_checkpoint(qwen2_folder), Wishes(device_map="npu:0"))


@pytest.mark.parametrize(("wanted", "pieces"), [(None, 128), (16, 16), (2048, 2048)])
def test_a_prompt_is_read_in_pieces_of_this_size(
    qwen2_folder: Path, wanted: int | None, pieces: int
) -> None:
    wishes = Wishes(device_map="cpu", batch_tokens=wanted)
    assert load_checkpoint(read_checkpoint(qwen2_folder), wishes).prefill == pieces


def test_batch_tokens_acts_where_it_was_given() -> None:
    assert "batch_tokens" not in make_settings().model_fields_set
    assert "batch_tokens" in make_settings(batch_tokens=128).model_fields_set


def test_settings_without_effect_are_said(qwen2_folder: Path) -> None:
    given = make_settings(prompt_cache=False, prompt_cache_mib=5, batch_tokens=64)
    assert notes(given, read_checkpoint(qwen2_folder, "tiny"))[0] == (
        "prompt_cache and prompt_cache_mib have no effect on the engine qwen_chat, "
        "which runs this model."
    )
    # A file that `config --toml` wrote states the defaults too.
    stated = make_settings(prompt_cache=True, prompt_cache_mib=0)
    assert len(notes(stated, read_checkpoint(qwen2_folder))) == 1


@pytest.mark.parametrize("folder", ["qwen2_folder", "golden"])
def test_loading_tells_how_far_it_is(
    folder: str, qwen_home: Path, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(folder)
    path = path / "checkpoint" if folder == "golden" else path
    told: list[tuple[int, int]] = []
    wishes = Wishes(device_map="cpu", home=qwen_home)
    load_checkpoint(read_checkpoint(path), wishes, lambda done, total: told.append((done, total)))
    total = told[-1][1]
    assert total > 10
    assert told == [(done, total) for done in range(total + 1)]


@pytest.mark.parametrize("error", ["OSError", "ImportError", "AttributeError"])
def test_a_torch_that_does_not_import_is_said_to_be_broken(
    qwen2_folder: Path, tmp_path: Path, error: str
) -> None:
    (tmp_path / "torch.py").write_text(f"raise {error}('libcudart.so.12: cannot open it')")
    env = environment(tmp_path, PYTHONPATH=str(tmp_path))
    done = run("serve", "--port", "0", str(qwen2_folder), env=env)
    assert done.returncode == 1
    assert f"does not work here: {error}: libcudart.so.12: cannot open it." in done.stderr
    assert "pip install --force-reinstall torch" in done.stderr
    assert "Traceback" not in done.stderr
