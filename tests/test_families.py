"""The table of generations is found by any name that a model goes by."""

import pytest

from qwen_openai.families import DEFAULT_FAMILY, FAMILIES, family_of


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("qwen2.5-coder-0.5b", "qwen2.5-coder"),
        ("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder"),
        ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5"),
        ("qwen2_5-7b", "qwen2.5"),
        ("Qwen2-7B-Instruct", "qwen2"),
        ("Qwen1.5-0.5B-Chat", "qwen2"),
        ("Qwen3-4B", "qwen3"),
        ("Qwen/Qwen3-4B-Thinking-2507", "qwen3"),
        ("Qwen3-Coder-30B-A3B-Instruct", "qwen3-coder"),
        ("Qwen3.5-9B", "qwen3.5"),
        ("Qwen/Qwen3.6-27B", "qwen3.6"),
        ("qwen3.8-max", "qwen3.8"),
        ("some-chatml-model", "chatml"),
    ],
)
def test_a_model_is_found_by_its_name(name: str, family: str) -> None:
    assert family_of(name).name == family


def test_every_family_is_found_by_its_own_fragments() -> None:
    for family in FAMILIES:
        assert all(family_of(fragment) is family for fragment in family.matches)


def test_defaults_are_in_range() -> None:
    for family in (*FAMILIES, DEFAULT_FAMILY):
        for sampling in (family.sampling, family.thinking_sampling or family.sampling):
            assert 0 < sampling.temperature <= 2
            assert 0 < sampling.top_p <= 1
            assert sampling.top_k >= 0
            assert sampling.repetition_penalty >= 1
            assert 0 <= sampling.presence_penalty <= 2
        assert "<|im_end|>" in family.stop_tokens


def test_thoughts_have_figures_where_a_family_has_thoughts() -> None:
    for family in FAMILIES:
        assert (family.thinking_sampling is not None) == (family.thinking != "never")
        assert not (family.efforts and family.thinking == "never")
