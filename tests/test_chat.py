"""The service: order of events, fan-out, failures, and slots that always come back."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.chat import ChatService
from qwen_openai.core import Admitted, Event, Finish, Grammar, Job, Message, Sampling, Started, Text
from qwen_openai.engines.fake import FakeEngine, Step, reply
from qwen_openai.errors import EngineFailed, InvalidRequest, Overloaded
from qwen_openai.grammars import build


def job(text: str = "one two three", *, n: int = 1, **sampling: object) -> Job:
    made = Sampling(**sampling)  # type: ignore[arg-type]  # a test's few fields
    return Job(id="x", model="fake", messages=(Message("user", text),), sampling=made, n=n)


def choices(asked: Job) -> list[Job]:
    """A job for each of its answers, as the routes make them."""
    return [replace(asked, choice=index) for index in range(asked.n)]


async def service(engine: FakeEngine, queue_size: int = 8) -> ChatService:
    await engine.start()
    return ChatService(engine, queue_size=queue_size)


async def collect(events: AsyncGenerator[Event, None]) -> list[Event]:
    return [event async for event in events]


async def test_a_stream_is_started_texts_finish() -> None:
    chat = await service(FakeEngine())
    events = await collect(chat.stream_all(choices(job())))
    assert isinstance(events[0], Admitted)
    assert events[1] == Started(0, 3)
    assert "".join(e.text for e in events if isinstance(e, Text)) == "one two three"
    assert events[-1] == Finish(0, "stop", 3)
    assert chat.admission.running == 0


async def test_open_waits_for_the_first_token_and_loses_nothing() -> None:
    chat = await service(FakeEngine())
    opened = await chat.open_all(choices(job()))
    events = [event async for event in opened]
    await opened.aclose()
    # How long each waited is never quite the same.
    assert events[1:] == (await collect(chat.stream_all(choices(job()))))[1:]
    assert len(events) > 3


async def test_every_event_is_watched_as_it_happens_also_those_before_a_failure() -> None:
    chat = await service(FakeEngine(lambda _: [EngineFailed("It broke.")]))
    watched: list[Event] = []
    with pytest.raises(EngineFailed):
        await chat.open_all(choices(job()), watch=watched.append)
    assert [type(event) for event in watched] == [Admitted]


async def test_what_was_altered_is_told_once() -> None:
    chat = await service(FakeEngine(context=10, slots=3))
    opened = await chat.open_all(choices(job(n=3, max_tokens=100)))
    assert len(opened.changes) == 1
    await opened.aclose()


async def test_choices_are_stamped_and_end_by_themselves() -> None:
    def script(asked: Job) -> list[Step]:
        return [f"{asked.choice} "] * (asked.choice + 1)

    chat = await service(FakeEngine(script, slots=2))
    events = await collect(chat.stream_all(choices(job(n=4))))
    for index in range(4):
        texts = [e.text for e in events if isinstance(e, Text) and e.index == index]
        assert texts == [f"{index} "] * (index + 1)
        assert [type(e) for e in events if e.index == index].count(Finish) == 1
    assert chat.admission.running == 0


async def test_a_stop_string_ends_the_work_of_its_choice_alone() -> None:
    gate = asyncio.Event()

    def script(asked: Job) -> list[Step]:
        return ["stop", "never"] if asked.choice == 0 else [gate, "on"]

    engine = FakeEngine(script, slots=2)
    chat = await service(engine)
    events = chat.stream_all(choices(job(n=2, stop=("stop",))))
    async for event in events:
        if isinstance(event, Finish):
            assert event == Finish(0, "stop", 1)
            break
    assert engine.record.cancelled == 1
    assert engine.record.open == 1
    gate.set()
    rest = await collect(events)
    assert rest[-1] == Finish(1, "stop", 1)


@pytest.mark.parametrize("n", [1, 3])
async def test_a_failure_reaches_the_caller_and_frees_every_slot(n: int) -> None:
    def script(asked: Job) -> list[Step]:
        return ["a", EngineFailed("It broke.")] if asked.choice == n - 1 else ["a", 0.001, "b"]

    chat = await service(FakeEngine(script, slots=3))
    with pytest.raises(EngineFailed, match="It broke"):
        await collect(chat.stream_all(choices(job(n=n))))
    assert chat.admission.running == 0


async def test_a_full_queue_refuses_before_anything_runs() -> None:
    engine = FakeEngine(lambda _: [asyncio.Event()], slots=1)
    chat = await service(engine, queue_size=1)
    chat.admission.enter()
    with pytest.raises(Overloaded):
        chat.stream_all(choices(job(n=2)))
    assert engine.record.started == 0


async def test_more_answers_than_ever_fit_are_the_clients_to_mend() -> None:
    chat = await service(FakeEngine(slots=1), queue_size=2)
    with pytest.raises(InvalidRequest) as refused:
        chat.stream_all(choices(job(n=4)))
    assert refused.value.param == "n"


async def test_jobs_of_one_request_run_together() -> None:
    chat = await service(FakeEngine(slots=2))
    several = [
        replace(job(text, n=2), choice=place, changes=("a", text))
        for place, text in enumerate(["one", "two two", "three"])
    ]
    opened = await chat.open_all(several)
    assert opened.changes == ("a", "one", "two two", "three")
    events = [event async for event in opened]
    await opened.aclose()
    for place, each in enumerate(several):
        texts = [e.text for e in events if isinstance(e, Text) and e.index == place]
        assert "".join(texts) == each.messages[0].content
    assert chat.admission.running == 0


async def test_more_prompts_than_ever_fit_name_the_prompt() -> None:
    chat = await service(FakeEngine(slots=1), queue_size=2)
    with pytest.raises(InvalidRequest, match="4 answers are asked for") as refused:
        chat.stream_all([replace(job(n=2), choice=place) for place in range(4)])
    assert refused.value.param == "prompt"


RULES = build.choice(["yes", "no"])


@pytest.mark.parametrize("n", [1, 2])
async def test_an_answer_is_held_to_its_grammar(n: int) -> None:
    held = replace(job(n=n), grammar=Grammar(RULES, "structured_outputs"))
    chat = await service(FakeEngine(lambda _: ["ye", "s"]))
    events = await collect(chat.stream_all(choices(held)))
    assert [e for e in events if isinstance(e, Finish)] == [Finish(i, "stop", 2) for i in range(n)]
    for text in ("yet", "ye"):
        wrong = await service(FakeEngine(reply(text)))
        with pytest.raises(EngineFailed, match="format"):
            await collect(wrong.stream_all(choices(held)))
        assert wrong.admission.running == 0


@pytest.mark.parametrize(
    ("pattern", "thinks", "refused"),
    [
        ("<think>[a-z]+", True, True),
        ("(<think>)?yes", True, True),
        ("<think>[a-z]+", False, False),
        (".+", True, False),
        ("yes", True, False),
    ],
)
async def test_a_format_may_not_begin_as_thoughts_do(
    pattern: str, thinks: bool, refused: bool
) -> None:
    engine = FakeEngine(reply("<think>abc" if "[" in pattern else "yes"))
    chat = await service(engine)
    held = replace(job(), grammar=Grammar(build.regex(pattern), "x.regex"), thinks=thinks)
    if not refused:
        await collect(chat.stream_all(choices(held)))
        return
    with pytest.raises(InvalidRequest, match="begin with <think>") as error:
        await chat.open_all(choices(held))
    assert error.value.param == "x.regex"
    assert (engine.record.started, chat.admission.running) == (0, 0)


async def test_rules_that_cannot_be_made_ready_fail_closed() -> None:
    engine = FakeEngine()
    chat = await service(engine)
    with pytest.raises(EngineFailed):
        await chat.open_all(choices(replace(job(), grammar=Grammar("answer: nowhere", "x"))))
    assert engine.record.started == 0
    assert chat.admission.running == 0


async def test_the_slot_is_free_before_the_last_event_is_taken() -> None:
    engine = FakeEngine(lambda _: ["a", "stop", asyncio.Event()])
    chat = await service(engine)
    async for event in chat.stream_all(choices(job(stop=("stop",)))):
        if isinstance(event, Finish):
            assert engine.record.open == 0
            assert chat.admission.running == 0


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_closing_early_cancels_the_work(n: int, after: int) -> None:
    steps: list[Step] = ["a", "b", asyncio.Event()] if after else [asyncio.Event()]
    engine = FakeEngine(lambda _: steps, slots=4)
    chat = await service(engine)
    events = chat.stream_all(choices(job(n=n)))
    for _ in range(after + n):  # and what says that each has its slot
        await anext(events)
    if after == 0:
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    await events.aclose()
    assert engine.record.open == 0
    assert chat.admission.running == 0


async def test_the_usual_time_of_an_answer_feeds_retry_after() -> None:
    chat = await service(FakeEngine())
    before = chat.admission.retry_after()
    for _ in range(20):
        await collect(chat.stream_all(choices(job())))
    assert chat.admission.retry_after() < before / 10


@given(
    words=st.lists(st.text("ab ", min_size=1, max_size=3), max_size=12),
    stop=st.lists(st.text("ab ", min_size=1, max_size=3), max_size=3),
    n=st.integers(1, 3),
)
def test_every_choice_has_one_finish_and_no_stop_string(
    words: list[str], stop: list[str], n: int
) -> None:
    async def run() -> None:
        chat = await service(FakeEngine(lambda _: words, slots=2))
        events = await collect(chat.stream_all(choices(job(n=n, stop=tuple(stop)))))
        for index in range(n):
            mine = [event for event in events if event.index == index]
            assert [isinstance(event, Finish) for event in mine].count(True) == 1
            assert isinstance(mine[-1], Finish)
            text = "".join(event.text for event in mine if isinstance(event, Text))
            assert not any(string in text for string in stop)
            assert "".join(words).startswith(text)

    asyncio.run(run())
