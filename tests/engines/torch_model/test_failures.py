"""What went wrong inside a model, in a sentence that says what to do."""

import pytest
import torch

from qwen_openai.engines.torch_model.failures import (
    empty_cache,
    explain,
    not_loaded,
    out_of_memory,
)

# What torch says on a CPU, in its own words.
_ON_CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(_ON_CPU)]
)
def test_memory_that_ran_out_is_known_and_no_loss(error: BaseException) -> None:
    assert out_of_memory(error)
    failure = explain(error)
    assert failure.memory
    assert failure.broken is None
    assert "ran out of memory" in failure.sentence
    assert "Send a shorter conversation" in failure.sentence


@pytest.mark.parametrize("error", [ValueError("can't allocate memory"), RuntimeError("shapes")])
def test_any_other_failure_tells_the_client_nothing_of_the_inside(error: BaseException) -> None:
    assert not out_of_memory(error)
    failure = explain(error)
    assert not failure.memory
    assert failure.broken is None
    assert str(error) not in failure.sentence
    assert "Send the request again" in failure.sentence


def test_an_error_of_a_card_that_still_works_breaks_nothing() -> None:
    failure = explain(torch.AcceleratorError("CUDA error: an illegal instruction"))
    assert failure.broken is None


def test_a_processor_has_no_blocks_to_give_back() -> None:
    empty_cache()


@pytest.mark.parametrize(
    ("error", "said", "fix"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "The memory did not hold m", "--context"),
        (MemoryError("no room"), "The memory did not hold m", "--context"),
        (OSError("cut short"), "m could not be loaded: OSError: cut short.", "qwen-openai pull"),
    ],
)
def test_why_a_model_did_not_load(error: BaseException, said: str, fix: str) -> None:
    failure = not_loaded("m", error)
    assert failure.message.startswith(said)
    assert fix in failure.fix
