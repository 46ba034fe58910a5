"""The tutorial's request to a job."""

import json
from dataclasses import replace

from qwen_openai.adapter.legacy import legacy_job
from qwen_openai.core import Job, Message, Sampling
from qwen_openai.families import family_of
from qwen_openai.protocol.legacy import parse_legacy


def job(**body: object) -> Job:
    request = parse_legacy(json.dumps(body).encode())
    return legacy_job(request, id="x", model="m", family=family_of("qwen2.5-0.5b"))


def test_the_tutorials_defaults() -> None:
    assert job(prompt="hi", history=[]) == Job(
        id="x",
        model="m",
        messages=(Message("user", "hi"),),
        sampling=Sampling(
            temperature=0.95, top_p=0.7, top_k=20, repetition_penalty=1.05, max_tokens=2048
        ),
        drop_oldest_pairs=True,
        watched=False,
    )


def test_history_and_settings() -> None:
    made = job(prompt="c", history=[["a", "b"]], max_length=99, top_p=0.5, temperature=1, x=1)
    assert made.messages == (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert made.max_total == 99
    assert made.sampling.max_tokens is None
    assert (made.sampling.top_p, made.sampling.temperature) == (0.5, 1)
    assert made.ignored == ("x",)


def test_an_answer_without_place_for_thoughts() -> None:
    request = parse_legacy(b'{"prompt": "hi"}')
    switched = legacy_job(request, id="x", model="m", family=family_of("qwen3-8b"))
    assert (switched.enable_thinking, switched.thinks) == (False, False)
    always = replace(family_of("qwen3-8b"), thinking="always")
    made = legacy_job(request, id="x", model="m", family=always)
    assert (made.enable_thinking, made.thinks) == (None, True)
