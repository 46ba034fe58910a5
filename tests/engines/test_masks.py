"""Masks over vocabularies: what a grammar allows is exactly what may come next, byte for byte."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_openai.engines.masks import TokenMask, TokenMasks
from qwen_openai.errors import EngineFailed
from qwen_openai.models.checkpoint import read_checkpoint, tokenizer_file
from qwen_openai.models.describe import describe
from qwen_openai.prompting.bpe import Bpe
from tests.models.tiny_gguf import write_tiny_model
from tests.real import real_files

ROWS = 512
"""Longer than any tiny vocabulary, as rows of logits often are."""


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Bpe:
    folder = tmp_path_factory.mktemp("vocabulary")
    describe(write_tiny_model(folder / "tiny.gguf"), folder)
    return Bpe(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def ends(bpe: Bpe) -> frozenset[int]:
    return frozenset((bpe.control["<|im_end|>"], bpe.control["<|endoftext|>"]))


@pytest.fixture(scope="module")
def masks(bpe: Bpe, ends: frozenset[int]) -> TokenMasks:
    return TokenMasks(bpe, ROWS, ends)


def allowed(mask: TokenMask) -> set[int]:
    return {number for number, may in enumerate(mask.allowed()) if may}


def walk(mask: TokenMask, ids: list[int]) -> TokenMask:
    for token in ids:
        assert token in allowed(mask)
        mask.take(token)
    return mask


def random_walk(
    masks: TokenMasks, bpe: Bpe, grammar: str, ends: frozenset[int], seed: int
) -> str | None:
    """The text of an answer of tokens that were drawn blindly; None where it had no end in time."""
    chance, mask = random.Random(seed), masks.start(grammar)
    raw = b""
    for _ in range(400):
        token = chance.choice(sorted(allowed(mask)))
        if token in ends:
            return raw.decode()
        raw += bpe.piece(token)
        mask.take(token)
    return None


def test_a_mask_has_a_byte_for_each_id_of_a_row(masks: TokenMasks, bpe: Bpe) -> None:
    mask = masks.start("start: /(?s:.*)/")
    assert len(mask.allowed()) == ROWS > bpe.size
    assert all(bpe.piece(token) for token in allowed(mask))


def test_an_answer_ends_exactly_where_its_grammar_may(
    masks: TokenMasks, bpe: Bpe, ends: frozenset[int]
) -> None:
    mask = masks.start("start: /a{2,3}/")
    (a,) = bpe.encode("a")
    seen = []
    for _ in range(4):
        seen.append(allowed(mask))
        if a in seen[-1]:
            mask.take(a)
    assert seen == [{a}, {a}, {a, *ends}, set(ends)]


def test_control_tokens_are_never_text(masks: TokenMasks, bpe: Bpe, ends: frozenset[int]) -> None:
    free = allowed(masks.start("start: /(?s:.*)/"))
    assert free & bpe.special == ends
    (less,) = bpe.encode("<")
    assert allowed(masks.start('start: "<|im_end|>"')) == {less}
    mask = walk(masks.start('start: "<|im_end|>"'), bpe.encode("<|im_end|>"))
    assert allowed(mask) == ends


@pytest.mark.parametrize("tag", ["<tool_call>", "</think>"])
def test_other_added_tokens_are_their_text(
    masks: TokenMasks, bpe: Bpe, ends: frozenset[int], tag: str
) -> None:
    token, spelled = bpe.control[tag], tag.replace("/", "\\/")
    assert token not in bpe.special
    assert allowed(masks.start(f'start: "{tag}"')) == {token}
    assert token in allowed(masks.start("start: /(?s:.*)/"))
    assert token in allowed(masks.start(f"start: /[a-z]*{spelled}x/"))
    mask = walk(masks.start(f"start: /[a-z]*{spelled}/"), bpe.encode(f"a{tag}"))
    assert allowed(mask) == ends
    assert allowed(walk(masks.start(f"start: /{spelled}/"), [token])) == ends


@pytest.mark.parametrize("text", ["e\u0301clair \u212b", "你好🦙", "\x00\xff\ufffd", "  \r\n"])
def test_a_text_that_the_vocabulary_would_normalise_stays_as_it_is(
    masks: TokenMasks, bpe: Bpe, ends: frozenset[int], text: str
) -> None:
    literal = "".join(f"\\u{{{ord(letter):x}}}" for letter in text)
    assert random_walk(masks, bpe, f"start: /{literal}/", ends, 1) == text


@pytest.mark.parametrize("pattern", ["[ab]{3,9}", "(hello|world) the [0-9]+", "[你好世]{1,4}.?"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_what_is_drawn_blindly_matches(
    masks: TokenMasks, bpe: Bpe, ends: frozenset[int], pattern: str, seed: int
) -> None:
    text = random_walk(masks, bpe, f"start: /{pattern}/", ends, seed)
    assert text is None or re.fullmatch(pattern, text)


def test_several_answers_at_once_do_not_touch_each_other(
    masks: TokenMasks, bpe: Bpe, ends: frozenset[int]
) -> None:
    one, other = masks.start("start: /ab/"), masks.start("start: /ab/")
    walk(one, bpe.encode("a"))
    assert allowed(other) == allowed(masks.start("start: /ab/"))
    walk(one, bpe.encode("b"))
    assert allowed(one) == ends != allowed(other)


@pytest.mark.parametrize(
    "grammar",
    [
        'start: "a" &',
        "start: nothing",
        'start: answer\nanswer: %json {"$ref": "https://example.org/schema"}',
        "start: /(?=a)b/",
    ],
)
def test_a_grammar_that_is_none_fails_closed(masks: TokenMasks, grammar: str) -> None:
    with pytest.raises(EngineFailed, match="held to its grammar"):
        masks.start(grammar)


@pytest.mark.parametrize(
    "grammar", ['start: answer\nanswer: %json {"$ref": "#"}', "start: A\nA: /a+/ & /b+/"]
)
def test_a_grammar_that_nothing_matches_fails_closed(masks: TokenMasks, grammar: str) -> None:
    with pytest.raises(EngineFailed):
        masks.start(grammar).allowed()


def test_a_token_that_was_not_allowed_fails_closed(masks: TokenMasks, bpe: Bpe) -> None:
    mask = masks.start('start: "a"')
    with pytest.raises(EngineFailed) as caught:
        mask.take(bpe.encode("b")[0])
    assert "\n" not in caught.value.message
    assert '"a"' not in caught.value.message
    with pytest.raises(EngineFailed):
        mask.allowed()


def test_without_a_token_that_ends_an_answer_there_are_no_masks(bpe: Bpe) -> None:
    with pytest.raises(EngineFailed, match="no token that ends"):
        TokenMasks(bpe, 100, {bpe.control["<|im_end|>"]})


def test_rows_may_be_shorter_than_the_vocabulary(bpe: Bpe) -> None:
    """Tokens that the model has no logits for are not forced either."""
    rows = bpe.control["<tool_call>"]
    short = TokenMasks(bpe, rows, {bpe.control["<|im_end|>"], 10**6})
    mask = short.start('start: "<tool_call>"')
    assert len(mask.allowed()) == rows
    walk(mask, bpe.encode("<tool_call>"))


def test_the_first_generations_vocabulary(shared: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(shared / "golden" / "qwen1" / "checkpoint")
    bpe = Bpe(tokenizer_file(checkpoint, tmp_path))
    ends = frozenset(bpe.control[f"<|{name}|>"] for name in ("endoftext", "im_start", "im_end"))
    masks = TokenMasks(bpe, bpe.size, ends)
    free = allowed(masks.start("start: /(?s:.*)/"))
    assert free & bpe.special == ends
    assert free - bpe.special
    for seed in range(3):
        text = random_walk(masks, bpe, "start: /(yes|no), [0-9]{2}/", ends, seed)
        assert text is not None
        assert re.fullmatch("(yes|no), [0-9]{2}", text)


@pytest.mark.real
def test_a_whole_vocabulary() -> None:
    bpe = Bpe(real_files().tokenizer)
    ends = frozenset((bpe.control["<|im_end|>"], bpe.control["<|endoftext|>"]))
    masks = TokenMasks(bpe, 151_936, ends)
    free = allowed(masks.start("start: /(?s:.*)/"))
    assert free & bpe.special == ends
    assert {bpe.control["<tool_call>"], bpe.control["</tool_call>"]} <= free
    assert len(free) > 151_000
    text = '<tool_call>\n{"name": "你好", "arguments": {}}\n</tool_call>'
    mask = masks.start('start: "<tool_call>\\n" %json {"type": "object"} "\\n</tool_call>"')
    walk(mask, bpe.encode(text, control=True))
    assert allowed(mask) == ends
