"""Jobs as a checkpoint takes them: pairs for a Qwen-1, a seed of its own for each choice."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Job, Message, RawPrompt, Sampling
from qwen_openai.engines.torch_model.jobs import as_trained, seed_of, tokens_of
from qwen_openai.engines.torch_model.load import Loaded
from qwen_openai.models.checkpoint import Checkpoint, Qwen1Facts
from tests.engines.contract import job

_NATIVE = Checkpoint(
    name="m",
    folder=Path(),
    raw=False,
    qwen1=None,
    context_length=512,
    kv_values_per_token=64,
    weight_bytes=1000,
    dtype="float32",
)
_QWEN1 = replace(
    _NATIVE, qwen1=Qwen1Facts(seq_length=512, use_dynamic_ntk=True, use_logn_attn=True)
)


def _said(*roles: str) -> Job:
    messages = tuple(Message(role, f"{role} {n}") for n, role in enumerate(roles))  # type: ignore[arg-type]  # the parameters are roles
    return replace(job(), messages=messages)


def test_no_seed_stays_none() -> None:
    assert seed_of(job()) is None


@given(seed=st.integers(-(2**63), 2**63 - 1), choices=st.integers(2, 128))
def test_each_choice_of_a_seed_has_its_own(seed: int, choices: int) -> None:
    sampling = Sampling(seed=seed)
    seeds = [seed_of(job("q", sampling, choice=choice)) for choice in range(choices)]
    assert seeds[0] == seed
    assert len({*seeds}) == choices
    assert all(one is not None and -(2**63) <= one < 2**63 for one in seeds)


@pytest.mark.parametrize("roles", [("user", "user"), ("system", "user", "assistant", "user")])
def test_other_models_take_messages_as_they_are(roles: Sequence[str]) -> None:
    asked = _said(*roles)
    assert as_trained(_NATIVE, asked) == (asked, ())


def test_a_qwen_1_gets_pairs() -> None:
    paired, changes = as_trained(_QWEN1, _said("user", "user", "assistant", "user"))
    assert [message.role for message in paired.messages] == ["user", "assistant", "user"]
    assert paired.messages[0].content == "user 0\n\nuser 1"
    assert changes


def test_a_raw_prompt_is_nobodys_pair() -> None:
    asked = replace(_said("user", "user"), prompt=RawPrompt("Once"))
    assert as_trained(_QWEN1, asked) == (asked, ())


def test_tokens_are_told_as_the_model_reads_them(qwen1_loaded: Loaded) -> None:
    tokens = tokens_of(qwen1_loaded.checkpoint, qwen1_loaded.renderer)
    ids = tokens.encode(_said("user", "user"))
    told = b"".join(tokens.decode(ids)).decode()
    assert told.endswith("<|im_start|>user\nuser 0\n\nuser 1<|im_end|>\n<|im_start|>assistant\n")
