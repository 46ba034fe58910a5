"""What callers ask for: decided by rule, or refused by name."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from qwen_openai.core import Sampling
from qwen_openai.engines.qwen_chat.arguments import Arguments, read_arguments, read_stop_ids
from qwen_openai.prompting.bpe import Bpe


@pytest.fixture(scope="module")
def bpe(qwen2_folder: Path) -> Bpe:
    return Bpe(qwen2_folder / "tokenizer.json")


@pytest.fixture
def read(bpe: Bpe) -> "Read":
    return Read(bpe)


class Read:
    def __init__(self, bpe: Bpe) -> None:
        self.bpe = bpe

    def __call__(self, config: object = None, **keywords: object) -> Arguments:
        stop_words_ids = keywords.pop("stop_words_ids", None)
        return read_arguments(config, stop_words_ids, keywords, self.bpe)


QWEN1 = {
    "do_sample": True,
    "top_k": 0,
    "top_p": 0.8,
    "repetition_penalty": 1.1,
    "max_new_tokens": 512,
    "max_window_size": 24000,
    "eos_token_id": 7,
}


@pytest.mark.parametrize(
    "config", [QWEN1, GenerationConfig.from_dict(QWEN1), SimpleNamespace(**QWEN1)], ids=type
)
def test_any_kind_of_config(read: Read, config: object) -> None:
    assert read(config) == Arguments(
        sampling=Sampling(temperature=1.0, top_p=0.8, repetition_penalty=1.1),
        max_new_tokens=512,
        max_length=None,
        min_new_tokens=0,
        max_window_size=24000,
        stop_words=(),
        stop_ids=frozenset({7}),
    )


def test_without_anything_it_is_greedy_and_unbounded(read: Read) -> None:
    expected = Arguments(Sampling(temperature=0), None, None, 0, None, (), frozenset())
    assert read() == read({}) == read(GenerationConfig.from_dict({})) == expected


def test_keywords_come_before_the_config(read: Read) -> None:
    told = read(
        QWEN1,
        temperature=2,
        top_p=1,
        top_k=5,
        min_p=0.1,
        repetition_penalty=1,
        presence_penalty=1,
        frequency_penalty=-1,
        seed=-5,
        min_new_tokens=2,
        max_window_size=10,
        stop_words="END",
        eos_token_id=[8, 9],
    )
    assert told.sampling == Sampling(2.0, 1.0, 5, 0.1, 1.0, -1.0, 1.0, -5)
    assert (told.min_new_tokens, told.max_window_size) == (2, 10)
    assert told.stop_words == ("END",)
    assert told.stop_ids == {8, 9}
    assert read(QWEN1, top_p=None, max_new_tokens=None) == read(QWEN1)


@pytest.mark.parametrize(
    ("config", "keywords", "temperature"),
    [
        ({}, {}, 0),
        ({}, {"temperature": 0.5}, 0.5),
        ({}, {"top_p": 0.5}, 1),
        ({"temperature": 0.5}, {}, 0.5),
        ({"do_sample": True}, {}, 1),
        ({"do_sample": True, "temperature": 0.5}, {"do_sample": False}, 0),
        ({"do_sample": True}, {"temperature": 0}, 0),
        ({"do_sample": False}, {"temperature": 0.5}, 0),
        ({"do_sample": False}, {"temperature": 0.5, "do_sample": True}, 0.5),
        ({}, {"repetition_penalty": 1.1}, 0),
    ],
)
def test_when_it_samples(
    read: Read, config: dict[str, object], keywords: dict[str, object], temperature: float
) -> None:
    assert read(config, **keywords).sampling.temperature == temperature


@pytest.mark.parametrize(
    ("config", "keywords", "limits"),
    [
        ({"max_new_tokens": 9}, {}, (9, None)),
        ({"max_length": 30}, {}, (None, 30)),
        ({"max_new_tokens": 9, "max_length": 20}, {}, (9, None)),
        ({"max_new_tokens": 9}, {"max_length": 100}, (None, 100)),
        ({"max_length": 20}, {"max_new_tokens": 50}, (50, None)),
        ({"max_new_tokens": 9}, {"max_length": 100, "max_new_tokens": 50}, (50, 100)),
        ({"max_new_tokens": 9}, {"max_length": None}, (9, None)),
    ],
)
def test_limits(
    read: Read,
    config: dict[str, object],
    keywords: dict[str, object],
    limits: tuple[int | None, int | None],
) -> None:
    told = read(config, **keywords)
    assert (told.max_new_tokens, told.max_length) == limits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", [0.5]),
        ("top_k", 1.5),
        ("max_new_tokens", "9"),
        ("max_length", 9.0),
        ("do_sample", 1),
        ("do_sample", "no"),
        ("seed", 0.5),
        ("stop_words", 5),
        ("stop_words", [5]),
        ("stop_words", {"a": 1}),
        ("eos_token_id", "a"),
        ("stop_words_ids", 5),
        ("stop_words_ids", [5]),
        ("stop_words_ids", ["a"]),
        ("stop_words_ids", [["a"]]),
        ("max_tokens", 5),
        ("append_history", 1),
        ("enable_thinking", "no"),
    ],
)
def test_wrong_kinds_are_named(read: Read, name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name):
        read(QWEN1, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 1.5),
        ("top_p", -0.1),
        ("top_k", -1),
        ("min_p", 1.1),
        ("temperature", 1e39),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1.0),
        ("repetition_penalty", 1e-40),
        ("repetition_penalty", 1e39),
        ("presence_penalty", math.inf),
        ("presence_penalty", 3e38),
        ("presence_penalty", -2.5),
        ("frequency_penalty", math.nan),
        ("frequency_penalty", 2.5),
        ("num_beams", 2),
        ("stream", True),
        ("logits_processor", [min]),
        ("logits_processor", torch.ones(2)),
        ("stopping_criteria", [max]),
        ("streamer", object()),
        ("max_new_tokens", 0),
        ("max_length", 0),
        ("min_new_tokens", -1),
        ("max_window_size", -1),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("stop_words", ""),
        ("stop_words", ["a", ""]),
        ("stop_words_ids", [[]]),
        ("stop_words_ids", [[1], [100_000]]),
        ("stop_words_ids", [[-1]]),
    ],
)
def test_wrong_values_are_named(read: Read, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        read(QWEN1, **{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("logits_processor", [None, [], LogitsProcessorList()]),
        ("stopping_criteria", [None, [], StoppingCriteriaList()]),
        ("stream", [None, False]),
        ("streamer", [None]),
        ("num_beams", [None, 1]),
        ("num_return_sequences", [1]),
        ("no_repeat_ngram_size", [0]),
        ("typical_p", [1, 1.0]),
        ("use_cache", [None, True, False]),
        ("return_dict_in_generate", [False]),
        ("sequence_bias", [None, {}]),
    ],
)
def test_what_asks_for_nothing_is_taken_in_either_way(
    read: Read, name: str, values: list[object]
) -> None:
    for value in values:
        assert read(QWEN1, **{name: value}) == read({**QWEN1, name: value}) == read(QWEN1)


def test_what_is_of_a_call_alone(read: Read) -> None:
    told = read({**QWEN1, "append_history": False, "enable_thinking": False})
    assert told == read(QWEN1, append_history=True, enable_thinking=None)
    told = read(QWEN1, append_history=False, enable_thinking=False)
    assert (told.append_history, told.enable_thinking) == (False, False)


@pytest.mark.parametrize("temperature", [1e-40, 1e-3, 100])
def test_extreme_temperatures(read: Read, temperature: float) -> None:
    assert read(temperature=temperature).sampling.temperature == temperature


@pytest.mark.parametrize(
    "config", [GenerationConfig.from_dict({"num_beams": 4}), {"no_repeat_ngram_size": 2}]
)
def test_what_a_config_asks_for_in_vain_is_refused(read: Read, config: object) -> None:
    with pytest.raises(ValueError, match=r"asks for (num_beams|no_repeat_ngram_size)="):
        read(config)


@pytest.mark.parametrize("config", ["greedy", 5, [1], True])
def test_a_config_is_an_object_or_a_dict(read: Read, config: object) -> None:
    with pytest.raises(TypeError, match="generation_config"):
        read(config)


def test_a_wrong_value_in_a_config_is_named_as_such(read: Read) -> None:
    with pytest.raises(ValueError, match=r"generation_config\.top_p"):
        read({"top_p": 7})


def test_stop_words_ids_become_texts(read: Read) -> None:
    bpe = read.bpe
    ids = [bpe.encode("Observation:"), bpe.encode("\n"), [bpe.control["<|im_end|>"]]]
    told = read(stop_words_ids=ids, stop_words=["END"])
    assert told.stop_words == ("Observation:", "\n", "END")
    assert told.stop_ids == {bpe.control["<|im_end|>"]}
    assert read(stop_words_ids=[torch.tensor(ids[0])]).stop_words == ("Observation:",)
    assert read(stop_words_ids=torch.tensor([ids[1]])).stop_words == ("\n",)


def test_a_part_of_a_character_is_no_stop_word(read: Read) -> None:
    half = read.bpe.encode("😀")[:1]
    with pytest.raises(ValueError, match=r"stop_words_ids\[0\] is no whole text"):
        read(stop_words_ids=[half])


def test_a_padding_token_has_no_effect(read: Read) -> None:
    assert read(QWEN1, pad_token_id=3) == read(QWEN1)


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        (None, set()),
        ({}, set()),
        ({"eos_token_id": 5, "num_beams": 4}, {5}),
        (GenerationConfig.from_dict({"eos_token_id": [5, 6], "top_p": 7}), {5, 6}),
    ],
    ids=["none", "empty", "dict", "object"],
)
def test_the_stop_ids_alone(config: object, ids: set[int]) -> None:
    """What else is in the config is no concern of a prompt of ids."""
    assert read_stop_ids(config) == ids
