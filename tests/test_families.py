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
        sampling = family.sampling
        assert 0 < sampling.temperature <= 2
        assert 0 < sampling.top_p <= 1
        assert sampling.top_k >= 0
        assert sampling.repetition_penalty >= 1
        assert "<|im_end|>" in family.stop_tokens
