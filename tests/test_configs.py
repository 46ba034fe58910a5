"""The memory that configs/qwen-7b-chat.toml reckons with, against the engine's own sizing."""

import tomllib
from pathlib import Path

import pytest

from qwen_openai.engines.qwen_chat.sizing import choose
from qwen_openai.engines.torch_model.devices import Room
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import Checkpoint, Qwen1Facts
from qwen_openai.settings import Settings

CONFIG = Path(__file__).parents[1] / "configs" / "qwen-7b-chat.toml"

# config.json of Qwen-7B-Chat; intermediate_size is 22016 there, half for each branch.
_LAYERS, _HIDDEN, _INNER, _WORDS = 32, 4096, 11008, 151936
_EMBEDDINGS = 2 * _WORDS * _HIDDEN
_LAYER = 4 * _HIDDEN**2 + 3 * _HIDDEN + 3 * _HIDDEN * _INNER + 2 * _HIDDEN
_PARAMETERS = _EMBEDDINGS + _LAYERS * _LAYER + _HIDDEN

_MODEL = Checkpoint(
    name="Qwen/Qwen-7B-Chat",
    folder=Path(),
    raw=True,
    qwen1=Qwen1Facts(seq_length=8192, use_dynamic_ntk=True, use_logn_attn=True),
    context_length=32768,
    kv_values_per_token=2 * _LAYERS * _HIDDEN,
    weight_bytes=2 * _PARAMETERS,
    dtype="bfloat16",
)


def _settings() -> Settings:
    return Settings.model_validate(tomllib.loads(CONFIG.read_text(encoding="utf-8")))


def test_the_comment_states_the_shapes_own_numbers() -> None:
    text = CONFIG.read_text(encoding="utf-8")
    for number in (_EMBEDDINGS, _LAYER, _PARAMETERS):
        assert f"{number:,}" in text
    assert f"{2 * _PARAMETERS / 1e9:.1f} GB = {2 * _PARAMETERS / 2**30:.1f} GiB" in text
    assert f"{4 * _PARAMETERS / 2**30:.1f} GiB" in text
    assert f"{2 * _MODEL.kv_values_per_token // 1024} KiB a token" in text


@pytest.mark.parametrize("free", [21.5, 23.0])
def test_what_it_asks_for_fits_a_card_of_24_gb(free: float) -> None:
    settings = _settings()
    room = Room("cuda:0", int(free * 2**30))
    sizing = choose(_MODEL, room, dtype=settings.dtype, context=settings.context)
    assert sizing.context == settings.context == 8192
    with pytest.raises(StartupError, match="free on cuda:0"):
        choose(_MODEL, room, dtype="float32", context=settings.context)


def test_the_tokens_that_are_said_to_fit_beside_do() -> None:
    for free, more in ((22.0, 6000), (23.5, 9000)):
        room = Room("cuda:0", int(free * 2**30))
        assert choose(_MODEL, room, dtype="bfloat16", context=8192 + more).context == 8192 + more
