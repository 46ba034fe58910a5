"""From wishes to a model: devices that are refused, pieces of a prompt, what is told meanwhile."""

from pathlib import Path

import pytest

from qwen_openai.engines.qwen_chat.startup import Wishes, load_checkpoint
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import read_checkpoint


def test_an_accelerator_that_is_not_there_is_refused(qwen2_folder: Path) -> None:
    with pytest.raises(StartupError, match="no device 'npu:0' here"):
        load_checkpoint(read_checkpoint(qwen2_folder), Wishes(device_map="npu:0"))


@pytest.mark.parametrize(("wanted", "pieces"), [(None, 128), (16, 16), (2048, 2048)])
def test_a_prompt_is_read_in_pieces_of_this_size(
    qwen2_folder: Path, wanted: int | None, pieces: int
) -> None:
    wishes = Wishes(device_map="cpu", batch_tokens=wanted)
    assert load_checkpoint(read_checkpoint(qwen2_folder), wishes).prefill == pieces


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
