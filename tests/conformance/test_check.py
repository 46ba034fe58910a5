"""Our own server holds every fact; one with a planted defect does not, and the fact says so."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_openai.conformance.catalogue import FACTS
from qwen_openai.conformance.fact import Fact, try_all
from qwen_openai.conformance.target import Target
from tests.cli.program import environment, run
from tests.conformance.obliging import obliging
from tests.conformance.planted import DEFECTS, Planted
from tests.live import Live, threaded

MODEL = "Qwen/Fake"
KEY = "k-" + "x" * 30


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(obliging, api_key=KEY, served_model_name=(MODEL,)) as running:
        yield running


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: str(fact.name))
def test_ours_holds(server: Live, fact: Fact) -> None:
    (outcome,) = try_all([fact], Target(server.base_url, MODEL, KEY, timeout=30))
    assert outcome.verdict == "pass", outcome.detail


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(name: str) -> None:
    defect = DEFECTS[name]
    wrap = functools.partial(Planted, defect=defect)
    with threaded(obliging, wrap, served_model_name=(MODEL,)) as spoilt:
        facts = [fact for fact in FACTS if fact.name == defect.fact]
        (outcome,) = try_all(facts, Target(spoilt.base_url, MODEL, None, timeout=30))
    assert outcome.verdict == "fail"
    assert outcome.detail


def test_names_are_unique() -> None:
    assert len({fact.name for fact in FACTS}) == len(FACTS)


def test_the_command_passes_ours(server: Live, tmp_path: Path) -> None:
    env = {**environment(tmp_path), "QWEN_OPENAI_API_KEY": KEY}
    done = run("check", server.url, "--only", "stream", "--json", env=env)
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["model"] == MODEL
    assert found["fail"] == 0
    assert found["pass"] == len(found["facts"]) > 10


def test_the_command_fails_a_defect_and_names_it(tmp_path: Path) -> None:
    wrap = functools.partial(Planted, defect=DEFECTS["role in every delta"])
    with threaded(obliging, wrap) as spoilt:
        done = run("check", spoilt.url, "--only", "stream.role", env=environment(tmp_path))
    assert done.returncode == 1
    assert "stream.role-once" in done.stdout
    assert "1 hold, 1 do not" in done.stdout


def test_the_command_says_when_nothing_answers(tmp_path: Path) -> None:
    done = run("check", "http://127.0.0.1:9", env=environment(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")


def test_the_command_knows_its_areas(server: Live, tmp_path: Path) -> None:
    done = run("check", server.url, "--only", "no-such", env=environment(tmp_path))
    assert done.returncode == 2
    assert "--only" in done.stderr
    assert "stream" in done.stderr
