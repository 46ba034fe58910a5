"""The translation of llama.cpp's chunks, on recorded shapes."""

from dataclasses import replace

import orjson
import pytest

from qwen_openai.core import Event, Finish, Started, Text, TokenLogprob
from qwen_openai.engines.llamacpp.chunks import Ask, Picked, Translator, read_step
from qwen_openai.errors import ContextLengthExceeded, EngineFailed


def chunk(
    text: str = "", tokens: tuple[int, ...] = (), predicted: int = 0, **more: object
) -> bytes:
    """A chunk as xllamacpp 2026.10 makes it, less the fields nobody reads."""
    reason = more.pop("finish_reason", None)
    verbose = {"content": text, "tokens": tokens, "tokens_predicted": predicted}
    if probabilities := more.pop("probabilities", None):
        verbose["completion_probabilities"] = probabilities
    return orjson.dumps(
        {
            "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": reason}],
            "__verbose": verbose,
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


def asked(stops: frozenset[int] = frozenset(), logprobs: int | None = None) -> Ask:
    pieces = {1: b"a", 5: b"<stop>", 8: " 🦜".encode()[:3], 9: b""}
    started = Started(2, 10, changes=("a change",), in_thought=True)
    return Ask(started, stops, logprobs, lambda number: pieces[number])


def translate(*chunks: bytes, logprobs: int | None = None) -> list[Event]:
    translator = Translator(asked(logprobs=logprobs))
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
        Started(2, 10, 4, ("a change",), in_thought=True),
        Text(2, "你", 1),
        Text(2, "好", 1),
        Finish(2, "stop", 3, 4),
    ]


def test_a_token_held_back_for_its_bytes_is_counted_with_the_next_text() -> None:
    events = translate(
        progress(0, 0), chunk("🦜", (98,), 3), chunk("a", (1,), 4), last("length", 6)
    )
    assert events[1:] == [Text(2, "🦜", 3), Text(2, "a", 1), Finish(2, "length", 6, 0)]


def test_progress_is_no_token_though_it_names_one() -> None:
    translator = Translator(asked(frozenset({0})))
    begun = chunk(tokens=(0,), prompt_progress={"total": 10, "cache": 0, "processed": 5})
    assert translator.feed(begun) == [Started(2, 10, 0, ("a change",), in_thought=True)]
    assert translator.feed(begun) == []
    assert translator.feed(chunk("!", (0,), 1)) == [Finish(2, "stop", 1, 0)]


def probability(
    raw: bytes, logprob: float, *top: tuple[int, float], id: int = 1
) -> dict[str, object]:
    others = [{"id": number, "bytes": [], "logprob": value} for number, value in top]
    return {"id": id, "bytes": list(raw), "logprob": logprob, "top_logprobs": others}


def test_logprobs_come_with_their_text() -> None:
    events = translate(
        progress(0, 0),
        chunk("a", (1,), 1, probabilities=[probability(b"a", -0.5, (5, -3.0), (1, -0.5))]),
        chunk("", (9,), 2, probabilities=[probability(b"", -2.0, (8, -1.5), id=9)]),
        chunk(" 🦜", (8,), 5, probabilities=[probability(" 🦜".encode(), 1e-9, (8, -0.0))]),
        chunk("", (7,), 6, probabilities=[probability(b"", -0.1, (1, -4.0), id=7)]),
        last("stop", 6),
        logprobs=2,
    )
    broken = TokenLogprob(" \ufffd", " 🦜".encode()[:3], -1.5)
    assert events[1:] == [
        Text(
            2,
            "a",
            1,
            (
                TokenLogprob(
                    "a",
                    b"a",
                    -0.5,
                    (TokenLogprob("a", b"a", -0.5), TokenLogprob("<stop>", b"<stop>", -3.0)),
                ),
            ),
        ),
        Text(
            2,
            " 🦜",
            4,
            (
                TokenLogprob("", b"", -2.0, (broken,)),
                TokenLogprob(" 🦜", " 🦜".encode(), 0.0, (replace(broken, logprob=0.0),)),
            ),
        ),
        Finish(2, "stop", 6, 0),
    ]


def test_without_alternatives_the_one_that_llama_sends_is_left_out() -> None:
    sent = chunk("a", (1,), 1, probabilities=[probability(b"a", -0.5, (1, -0.5))])
    events = translate(progress(0, 0), sent, logprobs=0)
    assert events[1:] == [Text(2, "a", 1, (TokenLogprob("a", b"a", -0.5),))]


def test_the_lowest_number_is_what_openai_says_of_the_impossible() -> None:
    sent = chunk("a", (1,), 1, probabilities=[probability(b"a", -3.4e38)])
    events = translate(progress(0, 0), sent, logprobs=0)
    assert events[1:] == [Text(2, "a", 1, (TokenLogprob("a", b"a", -9999.0),))]


def test_logprobs_nobody_asked_for_are_not_read() -> None:
    sent = chunk("a", (1,), 1, probabilities=[probability(b"a", -0.5, (1, -0.5))])
    assert translate(progress(0, 0), sent)[1:] == [Text(2, "a", 1)]


def test_a_stop_id_of_the_family_ends_the_answer_and_is_counted() -> None:
    translator = Translator(asked(frozenset({5})))
    translator.feed(progress(3, 3))
    assert translator.feed(chunk("a", (1,), 1)) == [Text(2, "a", 1)]
    assert translator.feed(chunk("<stop>", (5,), 2)) == [Finish(2, "stop", 2, 3)]
    assert translator.done
    assert not translator.ended


def test_an_answer_that_ends_by_itself_needs_no_cancelling() -> None:
    translator = Translator(asked(frozenset({5})))
    translator.feed(progress(0, 0))
    translator.feed(last("length", 0))
    assert translator.done
    assert translator.ended


def test_the_tokens_of_a_text_are_named_as_far_as_llama_does() -> None:
    translator = Translator(asked(frozenset({5})))
    seen = []
    for payload in (
        chunk("a", (1,), 1),
        chunk("", (9,), 2),
        chunk("b", (1,), 3),
        chunk("🦜", (8,), 6),
        chunk("<stop>", (5,), 7),
    ):
        translator.feed(payload)
        seen.append(translator.ids)
    assert seen == [[1], [1], [9, 1], [8], [5]]


def test_a_step_brings_a_token() -> None:
    sent = chunk("a", (1,), 1, probabilities=[probability(b"a", -0.5, (5, -3.0))])
    assert read_step(progress(0, 5), asked(logprobs=1)) is True
    assert read_step(sent, asked()) == Picked(1, None)
    top = (TokenLogprob("<stop>", b"<stop>", -3.0),)
    assert read_step(sent, asked(logprobs=1)) == Picked(1, TokenLogprob("a", b"a", -0.5, top))


def test_a_step_may_keep_its_token_to_itself() -> None:
    assert read_step(last("length", 1), asked()) is False


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"error": {"message": "NaN"}}'])
def test_a_step_that_is_none_fails_the_answer(payload: bytes) -> None:
    with pytest.raises(EngineFailed):
        read_step(payload, asked())


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
