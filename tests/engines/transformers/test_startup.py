"""From a directory to what answers jobs: what it says of itself, and what it makes of a job."""

import json
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from qwen_openai.core import Grammar, Job, Message, Sampling
from qwen_openai.engines.masks import TokenMasks
from qwen_openai.engines.torch_model.devices import Room
from qwen_openai.engines.torch_model.load import load
from qwen_openai.engines.transformers.packed import is_possible
from qwen_openai.engines.transformers.sizing import Wanted, choose
from qwen_openai.engines.transformers.startup import Served, Wishes, load_checkpoint
from qwen_openai.errors import ContextLengthExceeded, EngineFailed, StartupError
from qwen_openai.grammars import build
from qwen_openai.models.checkpoint import read_checkpoint

WISHES = Wishes(device_map="cpu", slots=3, threads=1)
RULES = build.choice(["a", "b"])


def job(text: str = "hi", rules: str = "", **sampling: object) -> Job:
    return Job(
        "job",
        "model",
        (Message("user", text),),
        Sampling(**sampling),  # type: ignore[arg-type]  # named by the tests
        grammar=Grammar(rules, "response_format") if rules else None,
    )


@pytest.fixture(scope="module")
def served(qwen2_folder: Path) -> Served:
    return load_checkpoint(read_checkpoint(qwen2_folder), WISHES)


def test_it_says_what_it_is(served: Served) -> None:
    info = served.info
    assert (info.engine, info.slots, info.context) == ("transformers", 3, 512)
    assert (info.device, dict(info.facts)["computes in"]) == ("CPU", "float32")
    assert "tokens" in dict(info.facts)["fits"]
    assert info.memory > 0


def test_a_job_is_bound_by_prompt_and_context(served: Served) -> None:
    answer = served.open(job(max_tokens=10_000), 64)
    assert answer.track.prompt == served.tokens.encode(job())
    assert answer.track.limits.max_tokens == 512 - len(answer.track.prompt)
    assert any("max_tokens" in change for change in answer.changes)
    assert served.open(job(), 64).track.limits.max_tokens == 64
    with pytest.raises(ContextLengthExceeded, match="512"):
        served.open(job("word " * 600), 64)


def test_the_model_ends_answers_where_its_files_say(served: Served, qwen2_folder: Path) -> None:
    stated = json.loads((qwen2_folder / "generation_config.json").read_bytes())["eos_token_id"]
    assert served.open(job(), 8).track.limits.stop >= set(stated)


def test_masks_are_ready_when_it_is(served: Served) -> None:
    """The first who asks for a format does not wait for them."""
    rules = served.open(job(rules=RULES), 8).track.rules()
    assert rules.allowed is not None


def test_without_masks_all_else_is_answered(qwen2_folder: Path) -> None:
    """A model may have no token that ends an answer."""
    checkpoint = read_checkpoint(qwen2_folder)
    masks: Future[TokenMasks] = Future()
    masks.set_exception(EngineFailed("no end"))
    sizing = choose(checkpoint, Room("the CPU", 10**10), Wanted("float32", slots=1))
    served = Served(load(qwen2_folder, "cpu", "float32", None), "tiny", sizing, WISHES, masks)
    assert served.open(job(), 8).track.limits.max_tokens == 8
    raised = []
    for _ in range(2):
        with pytest.raises(EngineFailed, match="no end") as caught:
            served.open(job(rules=RULES), 8)
        raised.append(caught.value)
    assert raised[0] is not raised[1]


def test_every_layer_of_a_qwen1_is_laid_out(golden: Path, qwen_home: Path) -> None:
    """The rules of its long contexts hang on layers, which then stay as they are."""
    checkpoint = read_checkpoint(golden / "checkpoint")
    assert checkpoint.qwen1 is not None
    assert checkpoint.context_length > checkpoint.qwen1.seq_length
    wishes = Wishes(device_map="cpu", slots=1, threads=1, home=qwen_home)
    model = load_checkpoint(checkpoint, wishes).runner._model
    assert model is not None
    if is_possible(torch.float32, torch.ops.mkldnn):
        assert not any(type(each) is torch.nn.Linear for each in model.modules())


def test_a_context_that_the_model_cannot_have(qwen2_folder: Path) -> None:
    with pytest.raises(StartupError, match="can hold 512"):
        load_checkpoint(read_checkpoint(qwen2_folder), Wishes(context=4096))
