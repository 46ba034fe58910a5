"""How long a context is chosen for whom, and what is said when it does not fit."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.engines.qwen_chat.sizing import choose
from qwen_openai.engines.torch_model.devices import Room, free_memory
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import Checkpoint, Qwen1Facts
from tests.engines.qwen_chat.scripted import checkpoint

GB = 10**9

# Qwen-7B-Chat: 15.4 GB of weights, 32 layers of 32 heads of 128, keys and values.
SEVEN_B = checkpoint(
    name="Qwen-7B-Chat",
    qwen1=Qwen1Facts(8192, True, True),
    context_length=32_768,
    kv_values_per_token=2 * 32 * 32 * 128,
    weight_bytes=15_442_649_088,
    dtype="bfloat16",
)
# Qwen2.5-0.5B: 24 layers, 2 heads of 64 for keys and values, shared by 14.
NATIVE = checkpoint(qwen1=None, raw=False, context_length=32_768, kv_values_per_token=6144)


@pytest.fixture
def native(tmp_path: Path) -> Callable[..., Checkpoint]:
    def write(**config: int) -> Checkpoint:
        shape = {"num_attention_heads": 14, "num_key_value_heads": 14, "hidden_size": 896}
        (tmp_path / "config.json").write_text(json.dumps({**shape, **config}))
        return replace(NATIVE, folder=tmp_path)

    return write


def card(gigabytes: float) -> Room:
    return Room("cuda:0 Card", int(gigabytes * GB))


@pytest.mark.parametrize(
    ("model", "memory", "context"),
    [
        (SEVEN_B, 25, 8192),  # a card of 24 GiB
        (SEVEN_B, 80, 8192),  # past what it was trained for only when asked
        (SEVEN_B, 18, 3584),
    ],
)
def test_unasked(model: Checkpoint, memory: float, context: int) -> None:
    assert choose(model, card(memory), dtype="bfloat16").context == context


@pytest.mark.parametrize(
    ("config", "memory", "context"),
    [
        ({}, 8, 32_768),
        ({}, 0.7, 5632),
        ({"num_key_value_heads": 2}, 8, 32_768),
        # Where heads share: 2 * 14 * 64 more numbers of each token, for the layer at work.
        ({"num_key_value_heads": 2}, 0.7, 4352),
        ({"num_key_value_heads": 2, "head_dim": 256}, 0.7, 2560),
    ],
)
def test_heads_that_share_keys(
    native: Callable[..., Checkpoint], config: dict[str, int], memory: float, context: int
) -> None:
    model = native(**config)
    sizing = choose(model, card(memory), dtype="bfloat16")
    assert sizing.context == context
    assert sizing.token == 6144 * 2
    full = choose(model, card(2 * memory), dtype="float32")
    assert full.token == 6144 * 4


def test_what_heads_that_share_keys_need_is_told(native: Callable[..., Checkpoint]) -> None:
    apart = "32,768 tokens of scripted in bfloat16 need about 1.0 GB; 0.7 GB are free"
    with pytest.raises(StartupError, match=apart):
        choose(native(), card(0.7), dtype="bfloat16", context=32_768)
    shared = native(num_key_value_heads=2)
    with pytest.raises(StartupError, match=apart.replace("1.0 GB", "1.2 GB")) as caught:
        choose(shared, card(0.7), dtype="bfloat16", context=32_768)
    assert caught.value.fix == "Give --context 4352 or less."
    assert choose(shared, card(0.7), dtype="bfloat16", context=4352).context == 4352


def test_past_the_trained_length_when_asked() -> None:
    assert choose(SEVEN_B, card(80), dtype="bfloat16", context=24_000).context == 24_000


def test_float32_takes_twice_the_memory() -> None:
    half = choose(SEVEN_B, card(80), dtype="bfloat16")
    full = choose(SEVEN_B, card(80), dtype="float32")
    assert (full.weights, full.token) == (2 * half.weights, 2 * half.token)


@pytest.mark.parametrize(
    ("memory", "dtype", "context", "message", "fix"),
    [
        (
            12,
            "bfloat16",
            None,
            "Qwen-7B-Chat needs about 16.2 GB in bfloat16; 12.0 GB are free on cuda:0 Card.",
            "Take a smaller model, or give --device-map cpu, which is slow.",
        ),
        (
            25,
            "float32",
            None,
            "Qwen-7B-Chat needs about 31.8 GB in float32; 25.0 GB are free on cuda:0 Card.",
            "Give --dtype bfloat16, take a smaller model, or give --device-map cpu, which is slow.",
        ),
        (
            25,
            "bfloat16",
            24_000,
            "24,000 tokens of Qwen-7B-Chat in bfloat16 need about 28.7 GB; 25.0 GB are free on "
            "cuda:0 Card.",
            "Give --context 16896 or less.",
        ),
        (
            80,
            "bfloat16",
            40_000,
            "Qwen-7B-Chat can hold 32,768 tokens; 40,000 were asked for.",
            "Give --context 32768 or less.",
        ),
    ],
)
def test_what_does_not_fit(
    memory: float, dtype: str, context: int | None, message: str, fix: str
) -> None:
    with pytest.raises(StartupError) as caught:
        choose(SEVEN_B, card(memory), dtype=dtype, context=context)
    assert (caught.value.message, caught.value.fix) == (message, fix)


def test_without_a_card_the_machine_is_short() -> None:
    with pytest.raises(StartupError) as caught:
        choose(SEVEN_B, Room("the CPU", 8 * GB), dtype="bfloat16")
    assert caught.value.fix == "Take a smaller model, or free memory."


@given(st.integers(0, 100 * GB), st.sampled_from(["bfloat16", "float32"]))
def test_what_is_chosen_fits(memory: int, dtype: str) -> None:
    try:
        sizing = choose(SEVEN_B, Room("x", memory), dtype=dtype)
    except StartupError:
        return
    assert 256 <= sizing.context <= 8192
    assert sizing.weights + sizing.context * sizing.token <= memory


def test_the_cpu_has_the_machines_memory() -> None:
    room = free_memory("cpu")
    assert room.name == "the CPU"
    assert room.memory > 0
