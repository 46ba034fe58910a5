"""The ready-made files: each loads, and qwen-7b-chat.toml reckons with the memory that the engine
would take by its own sizing."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_openai.engines.torch_model.devices import Room
from qwen_openai.engines.transformers.sizing import Sizing, Wanted, choose
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import Checkpoint, Qwen1Facts
from qwen_openai.settings import Settings, check_upstreams, load
from qwen_openai.settings.changes import TAKEN_LIVE

CONFIGS = Path(__file__).parents[1] / "configs"
CONFIG = CONFIGS / "qwen-7b-chat.toml"

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


@pytest.fixture
def fitted(tmp_path: Path) -> Callable[[float, str], Sizing]:
    """What the config gives on a card with so many GiB free."""
    shape = {
        "hidden_size": _HIDDEN,
        "intermediate_size": 2 * _INNER,
        "num_attention_heads": 32,
        "vocab_size": _WORDS,
    }
    (tmp_path / "config.json").write_text(json.dumps(shape))
    settings = _settings()

    def fit(free: float, dtype: str) -> Sizing:
        wanted = Wanted(dtype, settings.context, settings.slots)
        return choose(replace(_MODEL, folder=tmp_path), Room("cuda:0", int(free * 2**30)), wanted)

    return fit


@pytest.mark.parametrize("free", [21.5, 23.0])
def test_what_it_asks_for_fits_a_card_of_24_gb(
    fitted: Callable[[float, str], Sizing], free: float
) -> None:
    settings = _settings()
    assert settings.engine == "transformers"
    assert fitted(free, settings.dtype).context == settings.context == 8192
    with pytest.raises(StartupError, match="free on cuda:0"):
        fitted(free, "float32")


def test_the_answers_that_are_said_to_fit_do(fitted: Callable[[float, str], Sizing]) -> None:
    least, most = fitted(22.0, "bfloat16"), fitted(23.5, "bfloat16")
    text = " ".join(CONFIG.read_text(encoding="utf-8").replace("#", "").split())
    assert (
        f"{least.cache_tokens:,} to {most.cache_tokens:,} tokens for {least.slots} to"
        f" {most.slots} answers at once" in text
    )
    assert least.cache_tokens // 4096 == most.cache_tokens // 4096 == 3
    assert least.sentence().startswith("weights 15.4 GB")


@pytest.mark.parametrize("name", ["gateway.toml", "vllm.toml"])
def test_the_gateways_load_and_need_no_model(name: str) -> None:
    settings = load(environ={}, config=CONFIGS / name).settings
    check_upstreams(settings)
    assert not settings.runs_here
    labels = [each.label for each in settings.upstreams]
    assert len(set(labels)) == len(labels) >= 2
    assert all(each.name for each in settings.upstreams)


def test_the_gateways_file_says_truly_what_needs_a_restart() -> None:
    text = (CONFIGS / "gateway.toml").read_text(encoding="utf-8")
    above: list[str] = []
    for line in text.partition("[[upstreams]]")[0].splitlines():
        name = line.removeprefix("# ").partition(" = ")[0]
        if name not in Settings.model_fields:
            above.append(line)
            continue
        said = "(restart)" in line or (bool(above) and "(restart)" in above[-1])
        assert said == (name not in TAKEN_LIVE), name


def test_no_key_is_written_into_a_file() -> None:
    for file in CONFIGS.glob("*.toml"):
        for upstream in load(environ={}, config=file).settings.upstreams:
            assert upstream.api_key is None
