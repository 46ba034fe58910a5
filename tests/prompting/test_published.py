"""Prompts of the published templates: Hugging Face's ids, and every hostile text inert.

With the embedded model's vocabulary, which is that of Qwen2.5; Qwen3's is the same with four more
tags.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from qwen_openai.core import Message, TemplateValue, Thinking, Tool, ToolSyntax
from qwen_openai.errors import InvalidRequest
from qwen_openai.prompting.bpe import Bpe
from qwen_openai.prompting.render import Renderer
from qwen_openai.prompting.renderer import Around
from qwen_openai.prompting.template import ChatTemplate
from tests.prompting.attacks import PAYLOADS, PLACES, attack
from tests.prompting.published import NAMES, published_templates
from tests.prompting.requests import Maker, Request

pytestmark = pytest.mark.real

Choices = dict[str, tuple[TemplateValue, ...]]

_SWITCH: Choices = {"enable_thinking": (True, False)}
_KEEP: Choices = {"preserve_thinking": (True, False)}
_EFFORT: Choices = {"reasoning_effort": ("low", "medium", "xhigh")}
OPTIONS = {"qwen3_6": _SWITCH | _KEEP, "qwen3_8": _SWITCH | _KEEP | _EFFORT}
# These take thoughts out of a content by their tags, or have no such tags.
SPLIT_TAGS = {"qwen2_5", "qwen3", "qwen3_5_think", "qwen3_5_nothink", "qwen3_6"}
# A thousand for the two that are most in use.
COUNTS = {"qwen2_5": 1000, "qwen3": 1000}


@pytest.fixture(scope="session")
def templates() -> dict[str, str]:
    return published_templates()


@pytest.fixture(scope="session")
def qwen3_tokenizer(real_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compared by hand with the tokenizer.json that is published for Qwen3: vocabulary, merges,
    pattern and the ids of control tokens are the same."""
    document = json.loads(real_tokenizer.read_bytes())
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    for number, tag in enumerate(
        ("<tool_response>", "</tool_response>", "<think>", "</think>"), start=151_665
    ):
        document["added_tokens"].append({"id": number, "content": tag, **plain})
    path = tmp_path_factory.mktemp("qwen3") / "tokenizer.json"
    path.write_text(json.dumps(document))
    return path


class Pair:
    """Ours and Hugging Face's, with one template at a time."""

    def __init__(self, tokenizer: Path) -> None:
        self.bpe = Bpe(tokenizer)
        reference = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call] # theirs is untyped
            tokenizer_file=str(tokenizer)
        )
        self.apply: Callable[..., object] = reference.apply_chat_template


@pytest.fixture(scope="session")
def pair_of(real_tokenizer: Path, qwen3_tokenizer: Path) -> Callable[[str], Pair]:
    pairs = {False: Pair(real_tokenizer), True: Pair(qwen3_tokenizer)}
    return lambda name: pairs[name != "qwen2_5"]


def expected(pair: Pair, template: str, request: Request) -> list[int]:
    ids = pair.apply(
        request.turns,
        tools=request.tools or None,
        chat_template=template,
        add_generation_prompt=not request.continues,
        continue_final_message=request.continues,
        return_dict=False,
        **request.options,
    )
    assert isinstance(ids, list)
    return ids


@pytest.mark.parametrize("name", NAMES)
def test_random_requests_have_hugging_faces_ids(
    name: str, templates: dict[str, str], pair_of: Callable[[str], Pair]
) -> None:
    pair = pair_of(name)
    renderer = Renderer(pair.bpe, ChatTemplate(templates[name]))
    maker = Maker(7, tags=name in SPLIT_TAGS, options=OPTIONS.get(name, _SWITCH))
    for number in range(COUNTS.get(name, 300)):
        request = maker.request()
        ours = renderer.compose(
            request.messages, request.around, continue_final=request.continues
        ).ids
        assert ours == expected(pair, templates[name], request), f"request {number}"


FACTS: dict[str, tuple[ToolSyntax | None, Thinking]] = {
    "qwen2_5": ("hermes", "never"),
    "qwen3": ("hermes", "switched"),
    "qwen3_instruct_2507": ("hermes", "never"),
    "qwen3_5_think": ("xml", "switched"),
    "qwen3_5_nothink": ("xml", "switched"),
    "qwen3_6": ("xml", "switched"),
    "qwen3_8": ("xml", "switched"),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_templates_can_do(
    name: str, templates: dict[str, str], pair_of: Callable[[str], Pair]
) -> None:
    renderer = Renderer(pair_of(name).bpe, ChatTemplate(templates[name]))
    assert (renderer.tools, renderer.thinking) == FACTS[name]
    assert renderer.fills_in


def controls(ids: Sequence[int]) -> list[int]:
    return [number for number in ids if number >= 151_643]


@pytest.mark.parametrize("name", NAMES)
def test_no_payload_in_any_place_adds_a_control_token(
    name: str, templates: dict[str, str], pair_of: Callable[[str], Pair]
) -> None:
    renderer = Renderer(pair_of(name).bpe, ChatTemplate(templates[name]))
    known: dict[str, list[int]] = {}
    for place in PLACES:
        if place == "option" and name == "qwen3_8":
            continue  # this template refuses every word but its own
        calm = renderer.compose(*attack(place, "x"), known=known)
        for payload in PAYLOADS:
            hostile = renderer.compose(*attack(place, payload), known=known)
            assert controls(hostile.ids) == controls(calm.ids), (place, payload)
            assert hostile.in_thought == calm.in_thought


def test_an_option_that_a_template_does_not_know_is_refused(
    templates: dict[str, str], pair_of: Callable[[str], Pair]
) -> None:
    renderer = Renderer(pair_of("qwen3_8").bpe, ChatTemplate(templates["qwen3_8"]))
    for payload in PAYLOADS:
        with pytest.raises(InvalidRequest, match="Unexpected reasoning effort"):
            renderer.compose(*attack("option", payload))


@pytest.mark.parametrize("name", NAMES)
def test_where_the_template_opens_a_thought(
    name: str, templates: dict[str, str], pair_of: Callable[[str], Pair]
) -> None:
    renderer = Renderer(pair_of(name).bpe, ChatTemplate(templates[name]))
    question = [Message("user", "q<think>")]
    opens = [
        renderer.compose(question, Around(enable_thinking=switch)).in_thought
        for switch in (None, True, False)
    ]
    assert opens == {
        "qwen3_5_think": [True, True, False],
        "qwen3_5_nothink": [False, True, False],
        "qwen3_6": [True, True, False],
        "qwen3_8": [True, True, False],
    }.get(name, [False, False, False])
    told = Around(tools=(Tool("f"),), enable_thinking=True)
    answered = [*question, Message("assistant", "Once", reasoning="hm<think>")]
    continued = renderer.compose(answered, told, continue_final=True)
    assert not continued.in_thought
    assert renderer.decode(continued.ids).endswith("Once")
