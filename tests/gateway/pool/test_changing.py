"""Settings that change while there is work: nothing that stays may vanish meanwhile."""

import asyncio

import pytest

from qwen_openai.errors import UpstreamFailed
from tests.gateway.pool.scripted import Net, ScriptedClient, collect, job, pooled, upstreams
from tests.live import make_settings, until

BROKEN = UpstreamFailed("It broke.")


def down(client: ScriptedClient) -> None:
    client.sight = BROKEN


def slow(client: ScriptedClient) -> None:
    client.gate = asyncio.Event()


@pytest.mark.parametrize("change", [{"api_key": "k"}, {"url": "http://elsewhere"}])
async def test_a_model_does_not_vanish_while_its_upstream_is_looked_at_anew(
    change: dict[str, object],
) -> None:
    net = Net()
    async with pooled(upstreams("a"), net) as it:
        model, old = it.model, it.net["a"]
        net.prepare = {"a": slow}
        servers = [{**upstreams("a")[0], **change}]
        changing = asyncio.create_task(
            it.pool.apply(make_settings(upstreams=servers, probe_interval=3600))
        )
        await until(lambda: net.made == 2 and net["a"].looking == 1)
        assert it.model is model
        await collect(model.generate(job()))
        assert len(old.asked) == 1
        gate = net["a"].gate
        assert gate is not None
        gate.set()
        await changing
        assert it.model is model
        await collect(model.generate(job()))
        assert (len(old.asked), len(net["a"].asked)) == (1, 1)


async def test_another_key_that_is_refused_is_told_and_no_model_vanishes() -> None:
    net = Net()
    async with pooled(upstreams("a"), net) as it:
        net.prepare = {"a": down}
        servers = upstreams("a", api_key="wrong")
        await it.pool.apply(make_settings(upstreams=servers, probe_interval=3600))
        net["a"].steps = lambda _: [BROKEN]
        with pytest.raises(UpstreamFailed):
            await collect(it.model.generate(job()))


async def test_a_change_that_is_broken_off_leaves_nobody_looking() -> None:
    net = Net()
    async with pooled(upstreams("a"), net) as it:
        before = len(asyncio.all_tasks())
        net.prepare = {"b": slow}
        settings = make_settings(upstreams=upstreams("b"), probe_interval=3600)
        changing = asyncio.create_task(it.pool.apply(settings))
        await until(lambda: "b" in net.clients and net["b"].looking == 1)
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        assert len(asyncio.all_tasks()) == before
        assert it.states() == {"a": "up"}
        await collect(it.model.generate(job()))
