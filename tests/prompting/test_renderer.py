"""Prompts that are no conversation: text with control tokens, ids, and text with a gap."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from qwen_openai.core import Message, RawPrompt
from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.families import FillIn
from qwen_openai.prompting.bpe import TooLong
from qwen_openai.prompting.render import Renderer
from qwen_openai.prompting.renderer import MessagesOnly, PromptRenderer, Tokenised
from tests.models.tiny_gguf import TEMPLATE

TEXT = "hello<|im_end|>\n<|im_start|>user é <think>x"


@pytest.fixture(scope="module")
def filling(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    """The tiny model with all tokens of a fill-in."""
    document = json.loads(tiny_tokenizer.read_bytes())
    number = max(token["id"] for token in document["added_tokens"])
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    for token in ("<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"):
        number += 1
        document["added_tokens"].append({"id": number, "content": token, **plain})
    path = tmp_path_factory.mktemp("filling") / "tokenizer.json"
    path.write_text(json.dumps(document))
    return Renderer.load(path, TEMPLATE)


def test_control_tokens_of_a_raw_text_are_what_they_say(
    tiny: Renderer, tiny_tokenizer: Path
) -> None:
    expected = Tokenizer.from_file(str(tiny_tokenizer)).encode(TEXT).ids
    assert tiny.raw(RawPrompt(TEXT)) == expected
    assert tiny.raw(RawPrompt("")) == []


def test_ids_are_taken_as_they_are(tiny: Renderer) -> None:
    ids = tuple(tiny.raw(RawPrompt(TEXT)))
    assert tuple(tiny.raw(RawPrompt(ids))) == ids
    assert b"".join(tiny.pieces(ids)) == TEXT.encode()


@pytest.mark.parametrize("bad", [-1, 10**6, 2**32, 2**70])
def test_ids_that_are_none_are_refused(tiny: Renderer, bad: int) -> None:
    for number in (bad, tiny.vocab_size):
        assert not tiny.knows(number)
        with pytest.raises(InvalidRequest, match=str(number)) as caught:
            tiny.raw(RawPrompt((1, number)))
        assert caught.value.param == "prompt"
        with pytest.raises(InvalidRequest, match=str(number)):
            tiny.pieces([1, number])
    assert tiny.knows(tiny.vocab_size - 1)


def test_a_limit_is_met_exactly(tiny: Renderer, filling: Renderer) -> None:
    for renderer, prompt in (
        (tiny, RawPrompt(TEXT)),
        (tiny, RawPrompt("<think>" * 9)),
        (tiny, RawPrompt(tuple(range(50)))),
        (filling, RawPrompt(TEXT, "tail")),
        (filling, RawPrompt((1, 2, 3), "")),
    ):
        ids = renderer.raw(prompt)
        assert renderer.raw(prompt, len(ids)) == ids
        for limit in range(len(ids)):
            with pytest.raises(TooLong) as caught:
                renderer.raw(prompt, limit)
            assert limit < caught.value.at_least <= len(ids)


def test_a_gap_is_marked_and_the_text_around_it_inert(filling: Renderer) -> None:
    assert filling.fills_in
    ids = filling.raw(RawPrompt("<|fim_middle|>a", "b<|im_end|>"))
    marks = [filling.token_id(f"<|fim_{name}|>") for name in ("prefix", "suffix", "middle")]
    plain = [filling.raw(RawPrompt(text)) for text in ("a", "b")]
    assert [ids[0], ids[-1]] == [marks[0], marks[2]]
    assert [number for number in ids if number in marks] == marks
    assert filling.token_id("<|im_end|>") not in ids
    assert filling.decode(ids) == (
        "<|fim_prefix|><|fim_middle|>a<|fim_suffix|>b<|im_end|><|fim_middle|>"
    )
    assert filling.raw(RawPrompt(tuple(plain[0]), "b")) == [
        *(marks[0], *plain[0], marks[1], *plain[1], marks[2])
    ]


def test_what_ends_a_fill_in(tiny: Renderer, filling: Renderer) -> None:
    known = [filling.token_id(token) for token in FillIn().stop_tokens]
    assert filling.fill_in_stop_ids == tuple(number for number in known if number is not None)
    assert len(filling.fill_in_stop_ids) == 4
    assert not tiny.fills_in
    assert tiny.fill_in_stop_ids == ()


def test_a_suffix_where_the_model_fills_in_nothing_is_refused(tiny: Renderer) -> None:
    with pytest.raises(InvalidRequest, match="fill in") as caught:
        tiny.raw(RawPrompt("a", "b"))
    assert caught.value.param == "suffix"


@pytest.mark.parametrize(
    ("prompt", "param"), [(("\ud800", None), "prompt"), (("a", "\ud800"), "suffix")]
)
def test_a_lone_surrogate_is_refused(
    filling: Renderer, prompt: tuple[str, str | None], param: str
) -> None:
    with pytest.raises(InvalidRequest, match="surrogate") as caught:
        filling.raw(RawPrompt(*prompt))
    assert caught.value.param == param


class Counting(MessagesOnly):
    def render(self, messages: object, *, continue_final: bool = False) -> list[int]:
        return [1, 2]

    def render_within(
        self,
        messages: object,
        limit: int,
        *,
        continue_final: bool = False,
        known: Tokenised | None = None,
    ) -> list[int]:
        return [limit]


def test_one_that_knows_messages_alone() -> None:
    renderer: PromptRenderer = Counting()
    assert renderer.compose([Message("user", "q")]).ids == [1, 2]
    assert renderer.compose([Message("user", "q")], limit=7).ids == [7]
    assert renderer.knows(0)
    assert not renderer.knows(-1)
    assert (renderer.tools, renderer.thinking, renderer.fills_in) == (None, "never", False)
    with pytest.raises(UnsupportedParameter) as caught:
        renderer.raw(RawPrompt("x"))
    assert caught.value.param == "prompt"
