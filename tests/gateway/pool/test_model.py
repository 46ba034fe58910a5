"""A job's way: attempts, what is held back, what is raised, and counts that stay exact."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Event, Extra, Finish, Job, Message, Routed, Started, Text
from qwen_openai.engines.base import Engine
from qwen_openai.errors import (
    EngineUnavailable,
    InvalidRequest,
    ModelGone,
    Overloaded,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
)
from tests.gateway.pool.scripted import (
    Net,
    Script,
    ScriptedClient,
    Sight,
    Step,
    answer,
    collect,
    gathered,
    job,
    pooled,
    upstreams,
)
from tests.live import until

BROKEN = UpstreamFailed("It broke.")


def steps(*each: Step) -> Script:
    return lambda _: each


def net(**scripts: Script) -> Net:
    """Clients that do these steps."""

    def prepare(script: Script) -> Callable[[ScriptedClient], None]:
        def change(client: ScriptedClient) -> None:
            client.steps = script

        return change

    return Net({label: prepare(script) for label, script in scripts.items()})


def routes(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.upstream, event.attempt) for event in events if isinstance(event, Routed)]


async def test_events_come_as_the_client_gives_them_after_the_route() -> None:
    given: list[Event] = [Extra(0, {"a": 1}), Started(0, 3), Text(0, "x"), Finish(0, "stop")]
    async with pooled(upstreams("a"), net(a=steps(*given))) as it:
        assert await collect(it.model.generate(job())) == [Routed(0, "a", 1), *given]
        assert it.in_flight() == {"a": 0}


async def test_the_server_is_asked_by_its_own_name() -> None:
    servers: list[dict[str, object]] = [
        {"url": "http://a", "name": "a", "models": {"qwen2.5": "Qwen/Qwen2.5-7B-Instruct"}},
        {"url": "http://b", "name": "b", "models": ["qwen2.5"]},
    ]
    async with pooled(servers, net(a=steps(BROKEN), b=steps(BROKEN))) as it:
        with suppress(UpstreamFailed):
            await collect(it.model.generate(job(model="an alias")))
        names = {label: client.asked[0][0] for label, client in it.net.clients.items()}
        assert names == {"a": "Qwen/Qwen2.5-7B-Instruct", "b": "qwen2.5"}
        assert it.model.info().model == "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize("first", [[], [Started(0, 3)], [Extra(0), Started(0, 3), Extra(0)]])
@pytest.mark.parametrize("error", [BROKEN, UpstreamTimeout("silent"), UpstreamBusy("busy")])
async def test_a_failure_before_the_first_word_goes_elsewhere_unseen(
    first: list[Step], error: Exception
) -> None:
    def script(asked: Job) -> list[Step]:
        done.append(asked)
        return [*first, error] if len(done) == 1 else answer("fine")

    done: list[Job] = []
    async with pooled(upstreams("a", "b"), net(a=script, b=script)) as it:
        events = await collect(it.model.generate(job()))
        assert [attempt for _, attempt in routes(events)] == [1, 2]
        assert len({label for label, _ in routes(events)}) == 2
        assert [e for e in events if not isinstance(e, Routed)] == answer("fine")


async def test_after_the_first_word_nothing_is_tried_again() -> None:
    script = steps(Started(0, 3), Text(0, "a"), BROKEN)
    async with pooled(upstreams("a", "b"), net(a=script, b=script)) as it:
        seen: list[Event] = []
        with pytest.raises(UpstreamFailed) as failed:
            await gathered(it.model.generate(job()), seen)
        assert failed.value is BROKEN
        assert seen[1:] == [Started(0, 3), Text(0, "a")]
        assert sum(len(client.asked) for client in it.net.clients.values()) == 1


@pytest.mark.parametrize("cut", [[], [Started(0, 3)]])
async def test_an_answer_with_nothing_in_it_is_a_failure(cut: list[Step]) -> None:
    async with pooled(upstreams("a", "b"), net(a=steps(*cut), b=steps(*cut))) as it:
        with pytest.raises(UpstreamFailed, match="nothing in it"):
            await collect(it.model.generate(job()))


async def test_an_answer_without_an_end_is_a_failure() -> None:
    async with pooled(upstreams("a"), net(a=steps(Started(0, 3), Text(0, "x")))) as it:
        with pytest.raises(UpstreamFailed, match="broke off"):
            await collect(it.model.generate(job()))


@pytest.mark.parametrize("error", [InvalidRequest("no"), RuntimeError("a bug")])
async def test_what_no_other_can_mend_is_raised_at_once(error: Exception) -> None:
    async with pooled(upstreams("a", "b"), net(a=steps(error), b=steps(error))) as it:
        for _ in range(9):
            with pytest.raises(type(error)):
                await collect(it.model.generate(job()))
        assert sum(len(client.asked) for client in it.net.clients.values()) == 9
        assert set(it.states().values()) == {"up"}


@pytest.mark.parametrize(("attempts", "servers"), [(1, 2), (2, 3), (3, 2), (4, 1)])
async def test_attempts_are_bounded_and_go_round_only_when_none_is_left(
    attempts: int, servers: int
) -> None:
    labels = ["a", "b", "c"][:servers]
    scripts = net(**dict.fromkeys(labels, steps(BROKEN)))
    many = {"upstream_attempts": attempts, "breaker_failures": 99}
    async with pooled(upstreams(*labels), scripts, **many) as it:
        seen: list[Event] = []
        with pytest.raises(UpstreamFailed):
            await gathered(it.model.generate(job()), seen)
        asked = [label for label, _ in routes(seen)]
        assert len(asked) == attempts
        assert len(set(asked[:servers])) == min(attempts, servers)


@pytest.mark.parametrize(
    "error", [UpstreamTimeout("silent"), ModelGone("none"), UpstreamBusy("busy", retry_after=9)]
)
async def test_where_a_moment_would_not_help_nobody_is_asked_twice(error: Exception) -> None:
    async with pooled(upstreams("a"), net(a=steps(error))) as it:
        with pytest.raises(type(error)):
            await collect(it.model.generate(job()))
        assert len(it.net["a"].asked) == 1


async def test_the_most_telling_failure_is_raised() -> None:
    gone, busy = ModelGone("gone"), UpstreamBusy("busy", retry_after=70)
    busier = UpstreamBusy("busier", retry_after=90)
    for errors, told in (
        ([BROKEN, busy, busier], busy),
        ([BROKEN, gone, UpstreamTimeout("silent")], UpstreamTimeout),
        ([gone, BROKEN, gone], UpstreamFailed),
    ):
        labels = ["a", "b", "c"]
        scripts = {label: steps(error) for label, error in zip(labels, errors, strict=True)}
        async with pooled(upstreams(*labels), net(**scripts)) as it:
            with pytest.raises(Exception, match=r".") as raised:
                await collect(it.model.generate(job()))
            if isinstance(told, type):
                assert type(raised.value) is told
            else:
                assert raised.value is told


async def test_an_upstream_that_wants_quiet_gets_it() -> None:
    busy = UpstreamBusy("busy", retry_after=3600)
    async with pooled(upstreams("a", "b"), net(a=steps(busy))) as it:
        for _ in range(6):
            await collect(it.model.generate(job()))
        assert len(it.net["a"].asked) == 1
        assert it.states() == {"a": "up", "b": "up"}
    async with pooled(upstreams("a"), net(a=steps(busy))) as it:
        for _ in range(3):
            with pytest.raises(Overloaded) as refused:
                await collect(it.model.generate(job()))
            assert 110 < refused.value.retry_after <= 120
        assert len(it.net["a"].asked) == 1


async def test_all_open_is_told_at_once_with_the_time_of_the_next_look() -> None:
    scripts = net(a=steps(BROKEN), b=steps(BROKEN))
    many = {"upstream_attempts": 2, "breaker_failures": 1}
    async with pooled(upstreams("a", "b"), scripts, **many) as it:
        with pytest.raises(UpstreamFailed):
            await collect(it.model.generate(job()))
        for client in it.net.clients.values():
            client.gate = asyncio.Event()
        assert it.states() == {"a": "open", "b": "open"}
        assert not it.model.health().ready
        assert not it.pool.health().ready
        begun = time.perf_counter()
        for _ in range(20):
            with pytest.raises(EngineUnavailable, match="None of the 2 upstreams") as refused:
                await collect(it.model.generate(job()))
        assert refused.value.retry_after == 1
        # Promised within 10 ms; five times that is a failure.
        assert (time.perf_counter() - begun) / 20 < 0.05


async def test_a_full_upstream_gets_no_more() -> None:
    gate = asyncio.Event()
    servers = upstreams("a", "b", max_parallel=2)
    scripts = net(a=steps(gate, *answer("x")), b=steps(gate, *answer("x")))
    async with pooled(servers, scripts) as it:
        assert it.model.info().slots == 4
        running = [asyncio.create_task(collect(it.model.generate(job()))) for _ in range(4)]
        await until(lambda: it.in_flight() == {"a": 2, "b": 2})
        with pytest.raises(Overloaded, match="capacity"):
            await collect(it.model.generate(job()))
        gate.set()
        await asyncio.gather(*running)
        assert it.in_flight() == {"a": 0, "b": 0}


async def test_conversations_return_to_their_upstream_until_it_is_too_busy() -> None:
    gate = asyncio.Event()

    def script(asked: Job) -> list[Step]:
        return [gate, *answer("x")] if asked.messages[-1].content == "wait" else answer("x")

    scripts = net(a=script, b=script, c=script)
    async with pooled(upstreams("a", "b", "c"), scripts, affinity_gap=3) as it:
        for number in range(20):
            first = job(f"talk {number}")
            home = routes(await collect(it.model.generate(first)))[0][0]
            for turn in range(5):
                again = job(f"turn {turn}", *first.messages, Message("assistant", "x"))
                assert routes(await collect(it.model.generate(again)))[0][0] == home
        own = job("wait", *first.messages)
        held = [asyncio.create_task(collect(it.model.generate(own))) for _ in range(4)]
        await until(lambda: it.in_flight()[home] == 4)
        assert routes(await collect(it.model.generate(again)))[0][0] != home
        gate.set()
        await asyncio.gather(*held)


async def test_a_conversation_whose_upstream_is_down_goes_elsewhere_and_stays() -> None:
    async with pooled(upstreams("a", "b"), breaker_failures=1) as it:
        home = routes(await collect(it.model.generate(job())))[0][0]
        it.net[home].steps = steps(BROKEN)
        (_, _), (other, _) = routes(await collect(it.model.generate(job())))
        assert other != home
        for _ in range(5):
            assert routes(await collect(it.model.generate(job()))) == [(other, 1)]


async def test_whoever_has_the_end_need_not_ask_for_more() -> None:
    """A success counts when the last event is given away, not when the generator is exhausted."""
    async with pooled(upstreams("a"), breaker_failures=2) as it:
        for _ in range(6):
            async with aclosing(it.model.generate(job())) as events:
                async for event in events:
                    if isinstance(event, Finish):
                        break
            it.net["a"].steps = steps(Started(0, 1), Text(0, "x"), BROKEN)
            with pytest.raises(UpstreamFailed):
                await collect(it.model.generate(job()))
            it.net["a"].steps = lambda _: answer("fine")
        assert it.states() == {"a": "up"}


async def test_answers_that_break_midway_open_it_too() -> None:
    broken = steps(Started(0, 1), Text(0, "x"), BROKEN)
    async with pooled(upstreams("a"), net(a=broken), breaker_failures=3) as it:
        for _ in range(3):
            with pytest.raises(UpstreamFailed):
                await collect(it.model.generate(job()))
        assert it.states() == {"a": "open"}


async def test_tokens_are_asked_of_whoever_is_up() -> None:
    async with pooled(upstreams("a", "b"), net(a=steps(BROKEN), b=steps(BROKEN))) as it:
        with pytest.raises(UpstreamFailed):
            await it.model.tokenize(job())
        it.net["b"].steps = lambda _: []
        for _ in range(4):
            assert await it.model.tokenize(job()) == [len("qwen2.5")]
            assert await it.model.detokenize([5]) == [b"5"]
        assert it.in_flight() == {"a": 0, "b": 0}


@pytest.mark.parametrize("kinds", [("vllm", "vllm"), ("vllm", "llamacpp"), ("openai", "vllm")])
async def test_what_is_known_of_the_model(kinds: tuple[str, str]) -> None:
    def kind(client: ScriptedClient) -> None:
        context = 4096 if client.upstream.label == "a" else 2048
        client.sight = Sight({"qwen2.5": context}, client.upstream.kind)

    servers = [
        {**each, "kind": its, "max_parallel": 10}
        for each, its in zip(upstreams("a", "b"), kinds, strict=True)
    ]
    async with pooled(servers, Net({"a": kind, "b": kind})) as it:
        info = it.model.info()
        assert info is it.model.info()
        assert (info.context, info.slots, info.hands_on) == (2048, 20, True)
        assert (info.tools, info.thinking) == ("hermes", "never")
        assert ("min_tokens" in info.refuses) == (kinds != ("vllm", "vllm"))


PLANS = st.lists(
    st.tuples(
        st.sampled_from(["whole", "fails early", "fails late", "hangs", "hangs late"]),
        st.sampled_from(["reads", "closes", "is cancelled"]),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=8,
)


def planned(what: str) -> list[Step]:
    whole = answer("a", "b")
    never = asyncio.Event()
    scripts: dict[str, list[Step]] = {
        "whole": whole,
        "fails early": [Started(0, 1), BROKEN],
        "fails late": [*whole[:2], BROKEN],
        "hangs": [never],
        "hangs late": [*whole[:2], never],
    }
    return scripts[what]


async def leave(model: Engine, number: int, plan: tuple[str, str, int]) -> None:
    """Ask, and read or close as planned; a caller who closes does it before he would hang."""
    what, how, after = plan
    if how == "closes" and what.startswith("hangs"):
        after = min(after, 1 if what == "hangs" else 3)
    asked = Job(str(number), "qwen2.5", (Message("user", "x"),))
    with suppress(UpstreamFailed, EngineUnavailable):
        async with aclosing(model.generate(asked)) as events:
            if how != "closes":
                await gathered(events, [])
            for _ in range(after):
                await anext(events, None)


@given(PLANS)
def test_counts_are_exact_whenever_a_caller_leaves(plans: list[tuple[str, str, int]]) -> None:
    """Callers are cancelled or stop reading anywhere, upstreams fail anywhere: in the end nothing
    runs and nothing is counted."""

    def script(asked: Job) -> list[Step]:
        return planned(plans[int(asked.id)][0])

    async def run() -> None:
        scripts = net(a=script, b=script)
        async with pooled(upstreams("a", "b"), scripts, upstream_attempts=2) as it:
            tasks = [asyncio.create_task(leave(it.model, *each)) for each in enumerate(plans)]
            for (what, how, after), task in zip(plans, tasks, strict=True):
                if how == "is cancelled" or (how == "reads" and what.startswith("hangs")):
                    for _ in range(after):
                        await asyncio.sleep(0)
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert it.in_flight() == {"a": 0, "b": 0}
            assert [client.open for client in it.net.clients.values()] == [0, 0]

    asyncio.run(run())


async def test_questions_about_tokens_take_no_upstream_out() -> None:
    """Whoever may ask for tokens could else, with ids that a server chokes on, shut everybody
    out."""
    async with pooled(upstreams("a"), breaker_failures=1) as it:
        it.net["a"].steps = lambda _: [UpstreamFailed("It broke.")]
        with pytest.raises(UpstreamFailed):
            await it.model.tokenize(job())
        assert it.states() == {"a": "up"}
        it.net["a"].steps = lambda _: answer("fine")
        await collect(it.model.generate(job()))
