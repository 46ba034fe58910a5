"""What the gateway takes from the engine: the row of its model's family."""

from dataclasses import replace

import pytest

from qwen_openai.engines.base import EngineInfo
from qwen_openai.engines.fake import FakeEngine
from qwen_openai.families import Family
from qwen_openai.routes.gateway import Gateway
from tests.live import make_settings


class Named(FakeEngine):
    """Runs a model of a given name, of a family that it names or not."""

    def __init__(self, model: str, family: str) -> None:
        super().__init__()
        self._named = (model, family)

    def info(self) -> EngineInfo:
        model, family = self._named
        return replace(super().info(), model=model, family=family)


def _family(model: str, family: str) -> Family:
    return Gateway(make_settings(), Named(model, family)).family


def test_a_family_that_the_engine_names_counts_whatever_the_model_is_called() -> None:
    family = _family("my-model", "qwen1")
    assert (family.name, family.prompt, family.tools) == ("qwen1", "pairs", "react")


@pytest.mark.parametrize("name", ["Qwen-7B-Chat-GGUF", "my-qwen-14b"])
def test_a_name_alone_promises_neither_pairs_nor_tools(name: str) -> None:
    family = _family(name, "")
    assert (family.name, family.prompt, family.tools) == ("qwen1", "template", None)
    assert family.sampling.repetition_penalty == 1.1


def test_other_names() -> None:
    assert _family("Qwen2.5-Coder-0.5B-Instruct-GGUF", "").name == "qwen2.5-coder"
    assert _family("something", "").name == "chatml"
