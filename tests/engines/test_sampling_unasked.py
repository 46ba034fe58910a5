"""What no request of a batch asked for is not computed: torch's operations, seen from below."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qwen_openai.core import Sampling
from qwen_openai.engines.sampling import Rules, Sampler, pick_all

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ROWS, SIZE = 12, 150_000
GREEDY = Sampling(temperature=0)


class Operation(NamedTuple):
    """What was called, the shape of its first tensor, and the bytes of the new one that it made."""

    name: str
    shape: tuple[int, ...]
    made: int


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.seen: list[Operation] = []

    # torch's own signature.
    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        there = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        shape = tuple(args[0].shape) if args and isinstance(args[0], torch.Tensor) else ()
        made = 0
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in there:
                made += one.untyped_storage().nbytes()
        name = str(func).removeprefix("aten.").partition(".")[0]
        self.seen.append(Operation(name, shape, made))
        return result


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    return torch.randn(ROWS, SIZE, generator=torch.Generator().manual_seed(0)) * 4


def _operations(
    logits: torch.Tensor, samplings: list[Sampling], rules: Rules | None = None
) -> list[Operation]:
    rows = logits[: len(samplings)].clone()
    samplers = [Sampler(sampling, [1, 2, 2], CPU) for sampling in samplings]
    operations = _Operations()
    with operations:
        pick_all(rows, samplers, [rules or Rules()] * len(samplers))
    return operations.seen


def _large(operations: list[Operation]) -> list[str]:
    """The operations that went through a whole row, which are what costs."""
    return [one.name for one in operations if one.shape and one.shape[-1] >= SIZE]


def test_greedy_rows_need_one_look_and_one_wait(logits: torch.Tensor) -> None:
    seen = _operations(logits, [GREEDY] * ROWS)
    assert [name for name in _large(seen) if name not in ("_to_copy", "to", "gather")] == ["argmax"]
    # The host asks for no number on the way, and no memory is needed but for the tokens.
    assert not {"_local_scalar_dense", "is_nonzero", "nonzero"} & {one.name for one in seen}
    assert sum(one.made for one in seen) < 100 * ROWS


RANKS = {"topk", "sort"}
DRAWS = {"exp_", "log1p_", "mul_"}


@pytest.mark.parametrize(
    ("sampling", "absent"),
    [
        (GREEDY, {*RANKS, *DRAWS, "logsumexp", "cumsum", "index_add_", "cat", "masked_fill_"}),
        (Sampling(), {*RANKS, "logsumexp", "cumsum", "index_add_", "masked_fill_", "argmax_"}),
        (Sampling(top_k=20), {"sort", "log1p_", "exp_", "cumsum", "logsumexp", "argmax"}),
        (Sampling(top_p=0.1), {"sort", "log1p_", "cumsum", "logsumexp", "argmax"}),
        (Sampling(min_p=0.1), {*RANKS, "cumsum", "sum", "logsumexp"}),
        (Sampling(temperature=0, logprobs=0), {*RANKS, *DRAWS, "sum"}),
        (Sampling(temperature=0, presence_penalty=1), {*RANKS, *DRAWS, "clone", "index_select"}),
        (Sampling(temperature=0, logit_bias=((1, 2.0),)), {*RANKS, *DRAWS, "clone"}),
    ],
    ids=repr,
)
def test_whole_rows_are_gone_through_for_what_is_asked(
    logits: torch.Tensor, sampling: Sampling, absent: set[str]
) -> None:
    assert not absent & set(_large(_operations(logits, [sampling] * 3)))


def test_a_row_pays_for_itself_alone(logits: torch.Tensor) -> None:
    """One of many that asks for logprobs, one for a nucleus: the others are not gone through."""
    asked = [GREEDY] * (ROWS - 2)
    asked += [Sampling(temperature=0, logprobs=3), Sampling(top_p=0.1)]
    seen = _operations(logits, asked)
    for name in ("logsumexp", "topk", "exp_", "amax"):
        shapes = {one.shape for one in seen if one.name == name and one.shape[-1] >= SIZE}
        assert all(shape[0] == 1 for shape in shapes)
        assert shapes or name == "exp_"


def test_one_ranking_for_the_largest_count(logits: torch.Tensor) -> None:
    """Of top_k and of top_logprobs alike."""
    ways = [Sampling(top_k=k, seed=1) for k in (5, 20, 50)]
    assert _large(_operations(logits, ways)).count("topk") == 1
    counts = [Sampling(temperature=0, logprobs=count) for count in (0, 2, 20)]
    assert _large(_operations(logits, counts)).count("topk") == 1


def test_penalties_and_biases_of_all_rows_are_applied_at_once(logits: torch.Tensor) -> None:
    """No operation for each row: as many for one as for twelve."""
    sampling = Sampling(
        temperature=0,
        presence_penalty=1,
        repetition_penalty=1.1,
        logit_bias=((1, 2.0), (7, -100.0)),
    )
    rules = Rules(torch.tensor([3]), bytes([1]) * SIZE)
    one, all_of_them = (len(_operations(logits, [sampling] * rows, rules)) for rows in (1, ROWS))
    assert all_of_them <= one


def test_little_memory_is_needed_at_once(logits: torch.Tensor) -> None:
    """No step of drawing makes anything of the size of all rows."""
    for sampling in (Sampling(), Sampling(top_p=0.1), Sampling(top_k=20), Sampling(min_p=0.2)):
        seen = _operations(logits, [sampling] * ROWS)
        assert max(one.made for one in seen) <= logits.nbytes * 2 / 3


def test_an_answer_grows_without_the_device() -> None:
    """Also behind a prompt of 100,000 tokens: to remember a token touches no tensor."""
    sampling = Sampling(temperature=0, presence_penalty=1, repetition_penalty=1.1)
    sampler = Sampler(sampling, range(100_000), CPU)
    operations = _Operations()
    with operations:
        for token in range(99_000, 101_000):
            sampler.take(token)
    assert operations.seen == []
    rows = torch.zeros(1, SIZE)
    pick_all(rows, [sampler], [Rules()])
    assert torch.unique(rows).tolist() == [-1, 0]
    assert int((rows == -1).sum()) == 2000
