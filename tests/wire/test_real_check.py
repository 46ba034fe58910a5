"""Every fact of `qwen-openai check` on the real model; a part of them where it runs in Python."""

from collections.abc import Iterator

import pytest

from qwen_openai.conformance.catalogue import FACTS
from qwen_openai.conformance.fact import Fact, try_all
from qwen_openai.conformance.target import Target
from qwen_openai.engines.base import Engine
from qwen_openai.engines.factory import create_engine
from qwen_openai.models.checkpoint import read_checkpoint
from tests.live import Live, make_settings, threaded
from tests.models.qwen1.real_fixture import real_qwen1
from tests.real import real_engine

pytestmark = pytest.mark.real

# The engine qwen_chat makes a few tokens a second on two cores: of each area the facts that
# its renderer, its sampler, its masks or its parser decide, and that one short answer shows.
PART = {
    "answer.length",
    "answer.logprobs",
    "stream.usage-last",
    "tools.named",
    "tools.delta-joined",
    "error.schema-unusable",
}
KEY = "k-" + "x" * 30


def _of_weights() -> Engine:
    settings = make_settings(engine="qwen_chat", context=1024)
    return create_engine(settings, read_checkpoint(real_qwen1()))


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(real_engine, api_key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def weights_server() -> Iterator[Live]:
    with threaded(_of_weights, api_key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def target(server: Live) -> Target:
    """Kept for all facts: several look at one answer."""
    return _target(server)


@pytest.fixture(scope="module")
def weights_target(weights_server: Live) -> Target:
    return _target(weights_server)


def _target(server: Live) -> Target:
    return Target(server.base_url, server.gateway.model_names[0], KEY, timeout=120)


def _name(fact: Fact) -> str:
    return fact.name


def _hold(fact: Fact, target: Target) -> None:
    (outcome,) = try_all([fact], target)
    assert outcome.verdict == "pass", outcome.detail


@pytest.mark.parametrize("fact", FACTS, ids=_name)
def test_the_embedded_model_holds(target: Target, fact: Fact) -> None:
    _hold(fact, target)


@pytest.mark.parametrize("fact", [fact for fact in FACTS if fact.name in PART], ids=_name)
def test_weights_hold(weights_target: Target, fact: Fact) -> None:
    _hold(fact, weights_target)


def test_the_part_names_facts() -> None:
    assert {fact.name for fact in FACTS} >= PART
