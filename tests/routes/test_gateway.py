"""What the gateway takes from the engine: the row of its model's family."""

import re
from dataclasses import replace

import pytest

from qwen_openai.core import Grammar
from qwen_openai.engines.base import EngineInfo
from qwen_openai.engines.fake import FakeEngine
from qwen_openai.families import Family, family_of
from qwen_openai.grammars import build
from qwen_openai.routes.gateway import Gateway
from tests.live import live, make_settings


class Named(FakeEngine):
    """Runs a model of a given name, of which it tells some facts."""

    def __init__(self, model: str, **facts: object) -> None:
        super().__init__()
        self._facts = {"model": model, **facts}

    def info(self) -> EngineInfo:
        return replace(super().info(), **self._facts)  # type: ignore[arg-type]  # a test's few


def _family(model: str, **facts: object) -> Family:
    return Gateway(make_settings(), Named(model, **facts)).default()[1].family


def test_a_family_that_the_engine_names_counts_whatever_the_model_is_called() -> None:
    family = _family("my-model", family="qwen1", tools="react")
    assert (family.name, family.prompt, family.tools) == ("qwen1", "pairs", "react")


@pytest.mark.parametrize("name", ["Qwen-7B-Chat-GGUF", "my-qwen-14b", "Qwen3-Coder"])
def test_a_name_alone_promises_neither_pairs_nor_tools(name: str) -> None:
    family = _family(name)
    assert (family.prompt, family.tools, family.thinking) == ("template", None, "never")
    assert family.fill_in is None


def test_what_the_loaded_model_can_do_its_engine_tells() -> None:
    family = _family("Qwen2.5-Coder-0.5B", tools="hermes", thinking="switched", fills_in=True)
    assert (family.name, family.tools, family.thinking) == ("qwen2.5-coder", "hermes", "switched")
    assert family.fill_in == family_of("qwen2.5-coder").fill_in
    assert family.bare_calls
    # A vocabulary with the tokens alone says nothing of what the model was trained to do.
    assert _family("Qwen2.5-7B", fills_in=True).fill_in is None


def test_other_names() -> None:
    assert _family("Qwen2.5-Coder-0.5B-Instruct-GGUF").name == "qwen2.5-coder"
    assert _family("something").name == "chatml"


def test_the_fingerprint_is_that_of_engine_model_numbers_and_version() -> None:
    def fingerprint(model: str, **facts: object) -> str:
        return Gateway(make_settings(), Named(model, **facts)).default()[1].fingerprint

    one = fingerprint("a")
    assert re.fullmatch(r"fp_[0-9a-f]{10}", one)
    assert one == fingerprint("a", context=99, slots=1)
    others = (fingerprint("b"), fingerprint("a", engine="other"), fingerprint("a", dtype="float32"))
    assert len({one, *others}) == 4


async def test_what_checks_grammars_ends_with_the_server() -> None:
    async with live(FakeEngine()) as server:
        grammars = server.gateway.grammars
        await grammars.check(Grammar(build.choice(["a"]), "structured_outputs"))
        assert grammars.pid is not None
    assert grammars.pid is None
