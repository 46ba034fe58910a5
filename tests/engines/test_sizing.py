"""Sizing: what is chosen for whom, and what is said when it does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.engines.llamacpp.sizing import choose
from qwen_openai.engines.machine import Machine
from qwen_openai.errors import StartupError
from qwen_openai.models.describe import Description

GB = 10**9


def description(weights: int = 491_400_064, kv: int = 12_288, context: int = 32_768) -> Description:
    return Description("tiny", "qwen2", context, kv, weights, "", None)


SMALL = description()
SEVEN_B = description(weights=int(4.7 * GB), kv=57_344)


@pytest.mark.parametrize(
    ("model", "memory", "cores", "context", "slots"),
    [
        (SMALL, 24 * GB, 2, 8_192, 4),
        (SMALL, 64 * GB, 16, 8_192, 8),
        (SMALL, 3 * GB, 2, 8_192, 4),
        (SMALL, 1 * GB, 2, 4_096, 1),
        (SMALL, int(0.72 * GB), 2, 512, 1),
        (description(context=2_048), 24 * GB, 2, 2_048, 4),
        (SEVEN_B, 24 * GB, 8, 8_192, 8),
        (SEVEN_B, 8 * GB, 4, 4_096, 2),
    ],
)
def test_unasked(model: Description, memory: int, cores: int, context: int, slots: int) -> None:
    sizing = choose(model, Machine(memory, cores))
    assert (sizing.context, sizing.slots, sizing.threads) == (context, slots, cores)
    assert sizing.memory <= memory


def test_what_is_given_is_kept() -> None:
    sizing = choose(SMALL, Machine(4 * GB, 2), context=32_768, slots=6, threads=1)
    assert (sizing.context, sizing.slots, sizing.threads) == (32_768, 6, 1)
    assert choose(SMALL, Machine(2 * GB, 2), context=8_192).slots == 2
    assert choose(SMALL, Machine(2 * GB, 2), slots=16).context == 1_024


@pytest.mark.parametrize(
    ("model", "memory", "given", "said", "fix"),
    [
        (SMALL, 3 * GB, {"context": 32_768, "slots": 16}, "7.1 GB", "--context 11776 or --slots 5"),
        (SMALL, 1 * GB, {"context": 32_768, "slots": 2}, "1.0 GB are free", "--context 13056"),
        (SMALL, 1 * GB, {"slots": 64}, "1.1 GB", "--slots 51"),
        (SMALL, int(0.6 * GB), {}, "tiny needs about 0.7 GB of memory", "smaller model"),
        (SEVEN_B, 4 * GB, {}, "needs about 5.1 GB of memory; 4.0 GB are free", "smaller model"),
        (SMALL, 64 * GB, {"context": 40_000}, "trained for 32,768", "--context 32768 or less"),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(
    model: Description, memory: int, given: dict[str, int], said: str, fix: str
) -> None:
    with pytest.raises(StartupError, match=said) as caught:
        choose(model, Machine(memory, 2), **given)
    assert fix in caught.value.fix


@given(
    st.integers(10**8, 10**12),
    st.integers(1_000, 400_000),
    st.integers(10**8, 10**11),
    st.integers(1, 128),
)
def test_what_is_chosen_fits(memory: int, kv: int, weights: int, cores: int) -> None:
    try:
        sizing = choose(description(weights, kv), Machine(memory, cores))
    except StartupError:
        return
    assert sizing.memory <= memory
    assert sizing.context >= 512
    assert sizing.slots >= 1


def test_the_hint_is_true() -> None:
    choose(SMALL, Machine(3 * GB, 2), context=11_776, slots=16)
    choose(SMALL, Machine(3 * GB, 2), context=32_768, slots=5)
