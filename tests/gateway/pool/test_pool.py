"""Finding upstreams, looking after them, and changing them while they work."""

import asyncio
import sys
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from qwen_openai.core import Started, Text
from qwen_openai.errors import EngineUnavailable, ModelGone, Overloaded, UpstreamFailed
from qwen_openai.gateway.pool import Pool
from qwen_openai.gateway.pool.pool import labelled
from qwen_openai.upstreams import Upstream
from tests.gateway.pool.scripted import (
    Net,
    ScriptedClient,
    Sight,
    answer,
    collect,
    job,
    pooled,
    upstreams,
)
from tests.live import make_settings, until

BROKEN = UpstreamFailed("It broke.")


def shows(*models: str) -> Callable[[ScriptedClient], None]:
    def change(client: ScriptedClient) -> None:
        client.sight = Sight(dict.fromkeys(models, 4096))

    return change


def down(client: ScriptedClient) -> None:
    client.sight = BROKEN


def slow(client: ScriptedClient) -> None:
    client.gate = asyncio.Event()


async def looked(client: ScriptedClient) -> None:
    """Wait for one more look."""
    looks = client.looks
    await until(lambda: client.looks > looks)


async def test_models_are_found_and_shared() -> None:
    net = Net({"a": shows("x", "y"), "b": shows("y", "z")})
    async with pooled(upstreams("a", "b"), net) as it:
        assert list(it.pool.models) == ["x", "y", "z"]
        assert [state.models for state in it.pool.states()] == [("x", "y"), ("y", "z")]
        assert it.pool.models["y"].info().slots == 512
        assert it.pool.models["x"].info().slots == 256
        assert it.states() == {"a": "up", "b": "up"}


async def test_named_models_are_there_before_anybody_has_answered() -> None:
    net = Net({"a": slow})
    async with pooled(upstreams("a", models={"qwen2.5": "own"}), net) as it:
        assert it.states() == {"a": "unknown"}
        assert it.pool.health().ready
        await collect(it.model.generate(job()))
        assert it.states() == {"a": "up"}
        assert it.net["a"].asked[0][0] == "own"


async def test_those_who_do_not_answer_are_found_later() -> None:
    net = Net({"a": down})
    async with pooled(upstreams("a"), net, probe_interval=0.05) as it:
        assert dict(it.pool.models) == {}
        assert it.pool.health().detail.startswith("No upstream has answered yet")
        it.net["a"].sight = Sight({"qwen2.5": None})
        await until(lambda: "qwen2.5" in it.pool.models)
        assert it.pool.health().ready
        assert it.model.info().context == 0


async def test_models_that_come_and_go_are_followed_and_those_that_stay_are_the_same() -> None:
    net = Net({"a": shows("qwen2.5", "old")})
    async with pooled(upstreams("a"), net, probe_interval=0.05) as it:
        kept, gone = it.model, it.pool.models["old"]
        it.net["a"].sight = Sight({"qwen2.5": 4096, "new": None})
        await until(lambda: "new" in it.pool.models)
        assert list(it.pool.models) == ["qwen2.5", "new"]
        assert it.model is kept
        with pytest.raises(EngineUnavailable, match="No upstream serves 'old'"):
            await collect(gone.generate(job(model="old")))


async def test_a_broken_upstream_is_met_by_one_look_and_comes_back() -> None:
    async with pooled(upstreams("a"), probe_interval=0.1, breaker_failures=1) as it:
        client = it.net["a"]
        client.steps = lambda _: [BROKEN]
        with pytest.raises(UpstreamFailed):
            await collect(it.model.generate(job()))
        assert it.states() == {"a": "open"}
        slow(client)
        asked = len(client.asked)
        await until(lambda: it.states() == {"a": "probing"})
        for _ in range(50):
            with pytest.raises(EngineUnavailable):
                await collect(it.model.generate(job()))
        assert (len(client.asked), client.most_looking) == (asked, 1)
        client.steps = lambda _: answer("fine")
        assert client.gate is not None
        client.gate.set()
        await until(lambda: it.states() == {"a": "up"})
        await collect(it.model.generate(job()))


async def test_recovery_is_seen_within_the_interval() -> None:
    interval = 0.2
    async with pooled(upstreams("a"), probe_interval=interval) as it:
        client = it.net["a"]
        down(client)
        await until(lambda: it.states() == {"a": "open"})
        for _ in range(3):
            await looked(client)
        loop = asyncio.get_running_loop()
        client.sight = Sight({"qwen2.5": 4096})
        begun = loop.time()
        await until(lambda: it.states() == {"a": "up"})
        assert loop.time() - begun < interval * 5


async def test_a_look_that_fails_takes_it_out_and_what_runs_goes_on() -> None:
    gate = asyncio.Event()
    servers = upstreams("a", "b", max_parallel=4)
    async with pooled(servers, probe_interval=0.05) as it:
        for client in it.net.clients.values():
            client.steps = lambda _: [Started(0, 1), Text(0, "x"), gate, *answer("y")[1:]]
        running = [asyncio.create_task(collect(it.model.generate(job()))) for _ in range(2)]
        await until(lambda: sum(it.in_flight().values()) == 2)
        assert it.model.info().slots == 8
        down(it.net["a"])
        await until(lambda: it.states()["a"] == "open")
        assert it.model.info().slots == 4
        gate.set()
        for task in running:
            assert len(await task) == 5
        assert it.model.health().ready


@pytest.mark.parametrize("failure", [EngineUnavailable("busy"), RuntimeError("odd")])
async def test_only_blame_takes_an_upstream_out(failure: Exception) -> None:
    async with pooled(upstreams("a"), probe_interval=0.02) as it:
        it.net["a"].sight = failure
        looks = it.net["a"].looks
        await until(lambda: it.net["a"].looks > looks + 2)
        blamed = isinstance(failure, EngineUnavailable)
        assert (it.states() == {"a": "up"}) != blamed


async def test_a_look_that_hangs_is_a_failure_unless_answers_begin_meanwhile() -> None:
    net = Net({"idle": shows("idle"), "busy": shows("busy")})
    async with pooled(
        upstreams("idle", "busy"), net, probe_interval=0.05, connect_timeout=0.1
    ) as it:
        for client in net.clients.values():
            slow(client)
        looks = net["busy"].looks
        async with asyncio.timeout(10):
            while net["busy"].looks <= looks + 3 or it.states()["idle"] == "up":
                await collect(it.pool.models["busy"].generate(job()))
                await asyncio.sleep(0.002)
        assert it.states()["busy"] == "up"


async def test_changed_settings_keep_what_stays() -> None:
    gate = asyncio.Event()
    async with pooled(upstreams("a", "b")) as it:
        a, model = it.net["a"], it.model
        a.steps = lambda _: [Started(0, 1), Text(0, "x"), gate, *answer("y")[1:]]
        it.net["b"].sight = BROKEN
        it.net["b"].steps = lambda _: [BROKEN]
        running = asyncio.create_task(collect(it.model.generate(job("to a"))))
        while it.in_flight()["a"] == 0:
            running.cancel()
            running = asyncio.create_task(collect(it.model.generate(job())))
            await asyncio.sleep(0.01)
        servers = [*upstreams("a", weight=3, max_parallel=7), *upstreams("c")]
        await it.pool.apply(make_settings(upstreams=servers, probe_interval=3600))
        assert it.net["a"] is a
        assert it.states() == {"a": "up", "c": "up"}
        assert it.in_flight() == {"a": 1, "c": 0}
        assert it.model is model
        assert it.model.info().slots == 263
        gate.set()
        await running
        assert it.in_flight() == {"a": 0, "c": 0}


async def test_a_removed_upstream_finishes_what_it_does() -> None:
    gate = asyncio.Event()
    async with pooled(upstreams("a")) as it:
        a = it.net["a"]
        a.steps = lambda _: [Started(0, 1), Text(0, "x"), gate, *answer("y")[1:]]
        running = asyncio.create_task(collect(it.model.generate(job())))
        await until(lambda: a.open == 1)
        await it.pool.apply(make_settings(upstreams=upstreams("b"), probe_interval=3600))
        assert it.states() == {"b": "up"}
        await collect(it.model.generate(job()))
        assert len(a.asked) == 1
        gate.set()
        assert len(await running) == 5
        assert a.open == 0


async def test_all_may_go_and_come_back() -> None:
    async with pooled(upstreams("a")) as it:
        old = it.model
        await it.pool.apply(make_settings())
        assert (dict(it.pool.models), list(it.pool.states())) == ({}, [])
        assert it.pool.health().detail == "There are no upstreams."
        with pytest.raises(EngineUnavailable):
            await collect(old.generate(job()))
        await it.pool.apply(make_settings(upstreams=upstreams("a")))
        await collect(it.model.generate(job()))


@pytest.mark.parametrize(
    ("change", "made"),
    [
        ({"weight": 2}, 1),
        ({"models": ["qwen2.5", "other"]}, 1),
        ({"url": "http://elsewhere"}, 2),
        ({"api_key": "k"}, 2),
        ({"kind": "sglang"}, 2),
    ],
)
async def test_only_another_server_gets_another_client(
    change: dict[str, object], made: int
) -> None:
    async with pooled(upstreams("a")) as it:
        servers = [{**upstreams("a")[0], **change}]
        await it.pool.apply(make_settings(upstreams=servers, probe_interval=3600))
        assert it.net.made == made
        assert list(it.pool.models) == change.get("models", ["qwen2.5"])


async def test_other_deadlines_make_new_clients_and_keep_what_is_known() -> None:
    async with pooled(upstreams("a"), breaker_failures=1) as it:
        assert it.net["a"].kind == "vllm"
        it.net["a"].steps = lambda _: [BROKEN]
        with pytest.raises(UpstreamFailed):
            await collect(it.model.generate(job()))
        again = make_settings(upstreams=upstreams("a"), token_timeout=5, probe_interval=3600)
        await it.pool.apply(again)
        assert it.net.made == 2
        assert it.net["a"].kind == "vllm"
        assert it.states() == {"a": "open"}


async def test_looking_ends_with_the_pool() -> None:
    async with pooled(upstreams("a", "b"), probe_interval=0.02) as it:
        await it.pool.aclose()
        looks = [client.looks for client in it.net.clients.values()]
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not any(name.startswith("probe") for name in names)
        await it.pool.aclose()
        assert looks == [client.looks for client in it.net.clients.values()]


def test_two_of_one_name_are_told_apart() -> None:
    same = [Upstream(url=f"http://h:{port}", name="h") for port in (1, 2, 3)]
    assert list(labelled(same)) == ["h", "h-2", "h-3"]


async def test_a_pool_without_upstreams_loads_and_holds_nothing() -> None:
    pool = Pool(make_settings())
    await pool.start()
    assert not pool.health().ready
    assert pool._connections is None
    await pool.aclose()
    assert "qwen_openai.gateway.pool" in sys.modules


async def test_what_happens_to_an_upstream_is_said_once() -> None:
    with capture_logs() as logs:
        async with pooled(upstreams("a"), probe_interval=0.05) as it:
            down(it.net["a"])
            await until(lambda: it.states() == {"a": "open"})
            for _ in range(3):
                await looked(it.net["a"])
            it.net["a"].sight = Sight({"qwen2.5": 1})
            await until(lambda: it.states() == {"a": "up"})
            down(it.net["a"])
            await until(lambda: it.states() == {"a": "open"})
    told = [line for line in logs if line["log_level"] == "warning"]
    assert [(line["event"], line["reason"]) for line in told] == [
        ("upstream is down", "It broke."),
        ("upstream is down", "It broke."),
    ]


async def test_who_does_not_list_models_is_named_once_in_the_log() -> None:
    def silent(client: ScriptedClient) -> None:
        client.sight = ModelGone("no such endpoint")

    with capture_logs() as logs:
        named = upstreams("b", models=["qwen2.5"])
        net = Net({"a": silent, "b": silent})
        async with pooled([*upstreams("a"), *named], net, probe_interval=0.02) as it:
            for _ in range(3):
                await looked(it.net["a"])
            assert it.states() == {"a": "up", "b": "up"}
            assert list(it.pool.models) == ["qwen2.5"]
    assert [line["upstream"] for line in logs] == ["a"]
    assert "`models`" in logs[0]["event"]


async def test_odd_names_are_not_taken_over() -> None:
    net = Net({"a": shows("fine", "", "x\r\nset-cookie: y")})
    async with pooled(upstreams("a"), net) as it:
        assert list(it.pool.models) == ["fine"]


async def test_after_failed_work_one_request_at_a_time_shows_that_it_is_back() -> None:
    async with pooled(upstreams("a"), probe_interval=0.05, breaker_failures=1) as it:
        client = it.net["a"]
        client.steps = lambda _: [BROKEN]
        with pytest.raises(UpstreamFailed):
            await collect(it.model.generate(job()))
        gate = asyncio.Event()
        client.steps = lambda _: [gate, *answer("fine")]
        await until(lambda: it.states() == {"a": "up"})
        first = asyncio.create_task(collect(it.model.generate(job())))
        await until(lambda: client.open == 1)
        for _ in range(5):
            with pytest.raises(Overloaded):
                await collect(it.model.generate(job()))
        gate.set()
        await first
        several = [asyncio.create_task(collect(it.model.generate(job()))) for _ in range(5)]
        await asyncio.gather(*several)
        assert it.in_flight() == {"a": 0}


async def test_a_long_first_answer_does_not_keep_the_others_out() -> None:
    now = 0.0
    async with pooled(
        upstreams("a"), Net(clock=lambda: now), probe_interval=0.05, breaker_failures=1
    ) as it:
        client = it.net["a"]
        client.steps = lambda _: [BROKEN]
        with pytest.raises(UpstreamFailed):
            await collect(it.model.generate(job()))
        now += 0.1
        gate = asyncio.Event()
        client.steps = lambda _: [gate, *answer("fine")]
        await until(lambda: it.states() == {"a": "up"})
        jobs = [asyncio.create_task(collect(it.model.generate(job())))]
        # Each second that none of them fails, twice as many may try.
        for most in (2, 4, 8):
            await until(lambda: client.open == len(jobs))
            now += 1.0
            while len(jobs) < most:
                jobs.append(asyncio.create_task(collect(it.model.generate(job()))))
            await until(lambda: client.open == len(jobs))
            with pytest.raises(Overloaded):
                await collect(it.model.generate(job()))
        gate.set()
        await asyncio.gather(*jobs)
        assert it.in_flight() == {"a": 0}
