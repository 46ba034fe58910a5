"""Request bodies and the translation of llama.cpp's chunks, on recorded shapes."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Event, Finish, Sampling, Started, Text
from qwen_openai.engines.llamacpp.requests import (
    Translator,
    penalty_changes,
    request_body,
    to_uint32,
)
from qwen_openai.errors import ContextLengthExceeded, EngineFailed
from tests.engines.contract import job

int64 = st.integers(-(2**63), 2**63 - 1)


@given(int64, st.integers(0, 127))
def test_every_seed_is_taken_and_none_means_random(seed: int, choice: int) -> None:
    mapped = to_uint32(seed, choice)
    assert 0 <= mapped < 0xFFFFFFFF
    assert mapped == to_uint32(seed, choice)


@given(int64)
def test_neighbouring_choices_get_different_seeds(seed: int) -> None:
    assert to_uint32(seed, 0) != to_uint32(seed, 1)


def test_the_seed_that_llama_takes_for_random_is_avoided() -> None:
    assert to_uint32(0xFFFFFFFF, 0) != 0xFFFFFFFF
    assert to_uint32(-1, 0) != 0xFFFFFFFF


def test_no_seed_draws_a_fresh_one() -> None:
    assert len({to_uint32(None, 0) for _ in range(8)}) > 1


def body(sampling: Sampling) -> dict[str, Any]:
    """The body of a job with this sampling."""
    raw = request_body(job(sampling=sampling), [1, 2], 9, context=1024, prompt_cache=False)
    return dict(json.loads(raw))


def test_every_sampling_field_is_sent() -> None:
    sampling = Sampling(
        temperature=0.5,
        top_p=0.4,
        top_k=3,
        min_p=0.2,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        repetition_penalty=1.2,
        seed=5,
    )
    sent = body(sampling)
    wanted = {
        "prompt": [1, 2],
        "n_predict": 9,
        "temperature": 0.5,
        "top_p": 0.4,
        "top_k": 3,
        "min_p": 0.2,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "repeat_penalty": 1.2,
        "repeat_last_n": 1024,
        "seed": 5,
        "stop": [],
        "cache_prompt": False,
        "mirostat": 0,
        "dry_multiplier": 0.0,
        "xtc_probability": 0.0,
        "dynatemp_range": 0.0,
        "typical_p": 1.0,
    }
    assert {name: sent[name] for name in wanted} == wanted
    assert sent["samplers"].index("temperature") < sent["samplers"].index("top_p")


def test_temperature_0_is_greedy() -> None:
    sent = body(Sampling(temperature=0.0, top_k=40))
    assert (sent["top_k"], sent["temperature"]) == (1, 1.0)


@pytest.mark.parametrize(
    ("sampling", "names"),
    [
        (Sampling(), ()),
        (Sampling(repetition_penalty=1.1), ()),
        (Sampling(presence_penalty=0.5), ("presence_penalty",)),
        (
            Sampling(presence_penalty=-0.5, frequency_penalty=1.0),
            ("presence_penalty", "frequency_penalty"),
        ),
    ],
)
def test_penalties_that_differ_from_openai_are_said(
    sampling: Sampling, names: tuple[str, ...]
) -> None:
    changes = penalty_changes(sampling)
    assert changes == tuple(f"{name} counts the prompt's tokens too" for name in names)


def chunk(
    text: str = "", tokens: tuple[int, ...] = (), predicted: int = 0, **more: object
) -> bytes:
    """A chunk as xllamacpp 2026.10 makes it, less the fields nobody reads."""
    reason = more.pop("finish_reason", None)
    return orjson.dumps(
        {
            "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": reason}],
            "__verbose": {"content": text, "tokens": tokens, "tokens_predicted": predicted},
            **more,
        }
    )


def progress(cache: int, processed: int) -> bytes:
    return chunk(prompt_progress={"total": 10, "cache": cache, "processed": processed})


def last(reason: str, predicted: int, cached: int = 0) -> bytes:
    usage = {
        "completion_tokens": predicted,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return chunk(predicted=predicted, finish_reason=reason, usage=usage)


def translate(*chunks: bytes, stops: frozenset[int] = frozenset()) -> list[Event]:
    translator = Translator(2, 10, ("a change",), stops)
    return [event for each in chunks for event in translator.feed(each)]


def test_an_answer() -> None:
    assert translate(
        progress(4, 4),
        progress(4, 10),
        chunk("你", (7,), 1),
        chunk("好", (8,), 2),
        chunk("", (9,), 3),
        last("stop", 3, 4),
    ) == [
        Started(2, 10, 4, ("a change",)),
        Text(2, "你", 1),
        Text(2, "好", 1),
        Finish(2, "stop", 3, 4),
    ]


def test_a_token_held_back_for_its_bytes_is_counted_with_the_next_text() -> None:
    events = translate(
        progress(0, 0), chunk("🦜", (98,), 3), chunk("a", (1,), 4), last("length", 6)
    )
    assert events[1:] == [Text(2, "🦜", 3), Text(2, "a", 1), Finish(2, "length", 6, 0)]


def test_a_stop_id_of_the_family_ends_the_answer_and_is_counted() -> None:
    translator = Translator(0, 10, (), frozenset({5}))
    translator.feed(progress(3, 3))
    assert translator.feed(chunk("a", (1,), 1)) == [Text(0, "a", 1)]
    assert translator.feed(chunk("<stop>", (5,), 2)) == [Finish(0, "stop", 2, 3)]
    assert translator.done
    assert not translator.ended


def test_an_answer_that_ends_by_itself_needs_no_cancelling() -> None:
    translator = Translator(0, 10, (), frozenset({5}))
    translator.feed(progress(0, 0))
    translator.feed(last("length", 0))
    assert translator.done
    assert translator.ended


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-45, 9.9e-4])
def test_a_temperature_too_small_to_divide_by_is_greedy(temperature: float) -> None:
    sent = body(Sampling(temperature=temperature, top_k=40))
    assert (sent["temperature"], sent["top_k"]) == (1.0, 1)


def test_a_small_temperature_is_sent() -> None:
    sent = body(Sampling(temperature=1e-3, top_k=40))
    assert (sent["temperature"], sent["top_k"]) == (1e-3, 40)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"text": "a"}]}',
        b'{"choices": [{"text": "a"}], "__verbose": null}',
        b'{"error": "broken"}',
        b"\xff",
    ],
)
def test_what_is_no_chunk_fails_the_answer(payload: bytes) -> None:
    with pytest.raises(EngineFailed, match="cannot be read"):
        translate(payload)


def test_errors_have_classes() -> None:
    too_long = {"error": {"code": 400, "message": "11 > 10", "type": "exceed_context_size_error"}}
    with pytest.raises(ContextLengthExceeded, match="11 > 10"):
        translate(orjson.dumps(too_long))
    broken = {"error": {"code": 500, "message": "NaN", "type": "server_error"}}
    with pytest.raises(EngineFailed, match="NaN"):
        translate(orjson.dumps(broken))
