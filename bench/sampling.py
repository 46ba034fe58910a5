"""What picking the tokens of a step costs: `python -m bench.sampling [--repeat 7] [--device cpu]`.

Logits of a Qwen's vocabulary for 1, 8, 32 and 128 answers go through `pick_all`, through a loop
that picks row by row, and, where they know what is asked, through transformers' own processors and
torch.multinomial: milliseconds a step, and ratios of the same run. Then a small model with random
weights answers prompts alone and in one batch, seeded: how many answers agree, by precision.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    Qwen2ForCausalLM,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.models.qwen2 import Qwen2Config

from bench.load import machine
from qwen_openai.core import Sampling
from qwen_openai.engines.sampling import Picked, Rules, Sampler, pick_all

_PROMPT = 512
_QWEN = Sampling(temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.05)
_WAYS = {
    "greedy": Sampling(temperature=0),
    "plain": Sampling(),
    "top_p": Sampling(temperature=0.7, top_p=0.8),
    "min_p": Sampling(min_p=0.05),
    "qwen": _QWEN,
    "penalties": Sampling(temperature=0, presence_penalty=0.5, frequency_penalty=0.5),
    "logprobs": Sampling(temperature=0, logprobs=5),
}
_MIXED = "mixed"


def _samplings(way: str, rows: int) -> list[Sampling]:
    ways = [*_WAYS.values()] if way == _MIXED else [_WAYS[way]]
    return [replace(ways[n % len(ways)], seed=n) for n in range(rows)]


def _milliseconds(
    step: Callable[[torch.Tensor], object], logits: torch.Tensor, times: int
) -> float:
    """The median of a step; each gets logits that it may alter."""
    took = []
    for _ in range(times + 1):
        altered = logits.clone()
        _wait(logits.device)
        begun = time.perf_counter()
        step(altered)
        _wait(logits.device)
        took.append(time.perf_counter() - begun)
    return statistics.median(took[1:]) * 1000


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _samplers(samplings: Sequence[Sampling], ids: torch.Tensor) -> list[Sampler]:
    return [
        Sampler(sampling, prompt, ids.device)
        for sampling, prompt in zip(samplings, ids.tolist(), strict=True)
    ]


def _at_once(samplings: Sequence[Sampling], ids: torch.Tensor) -> Callable[[torch.Tensor], object]:
    samplers, rules = _samplers(samplings, ids), [Rules()] * len(samplings)
    return lambda logits: pick_all(logits, samplers, rules)


def _by_row(samplings: Sequence[Sampling], ids: torch.Tensor) -> Callable[[torch.Tensor], object]:
    samplers = _samplers(samplings, ids)
    return lambda logits: [sampler.pick(row) for sampler, row in zip(samplers, logits, strict=True)]


def _theirs(sampling: Sampling, ids: torch.Tensor) -> Callable[[torch.Tensor], object] | None:
    """transformers' way, as in `generate`: one setting for all rows, one generator for all."""
    if sampling.presence_penalty or sampling.logprobs is not None:
        return None
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.is_greedy:
        return lambda logits: logits.argmax(1).tolist()
    if sampling.temperature != 1:
        steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))

    def step(logits: torch.Tensor) -> object:
        scores = steps(ids, logits)  # type: ignore[arg-type]  # LongTensor is a CPU's alone
        return torch.multinomial(scores.softmax(1), 1).tolist()

    return step


def _costs(options: argparse.Namespace, device: torch.device) -> Iterator[str]:
    for way in (*_WAYS, _MIXED):
        for rows in options.rows:
            logits = torch.randn(rows, options.vocabulary, device=device) * 3
            ids = torch.randint(options.vocabulary, (rows, _PROMPT), device=device)
            samplings = _samplings(way, rows)
            ours = _milliseconds(_at_once(samplings, ids), logits, options.repeat)
            loop = _milliseconds(_by_row(samplings, ids), logits, options.repeat)
            line = f"{way:<9} {rows:4d} rows {ours:9.2f} ms, row by row {loop / ours:6.2f} times"
            theirs = None if way == _MIXED else _theirs(samplings[0], ids)
            if theirs is not None:
                took = _milliseconds(theirs, logits, options.repeat)
                line += f", transformers {took / ours:6.2f} times"
            yield line


def _model(device: torch.device, dtype: torch.dtype) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    with device:
        model = Qwen2ForCausalLM._from_config(config, dtype=dtype)
    return model.eval()


def _answers(
    model: Qwen2ForCausalLM, prompts: torch.Tensor, seeds: Sequence[int], tokens: int
) -> list[list[int]]:
    """Seeded answers, all in one batch."""
    samplers = [
        Sampler(replace(_QWEN, seed=seed), prompt, prompts.device)
        for seed, prompt in zip(seeds, prompts.tolist(), strict=True)
    ]
    answers: list[list[int]] = [[] for _ in samplers]
    ids, cache = prompts, None
    for _ in range(tokens):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        picked = pick_all(output.logits[:, -1], samplers, [Rules()] * len(samplers))
        for answer, one in zip(answers, picked, strict=True):
            if not isinstance(one, Picked):
                raise one
            answer.append(one.token)
        ids = torch.tensor([[answer[-1]] for answer in answers], device=prompts.device)
    return answers


def _agreement(options: argparse.Namespace, device: torch.device) -> Iterator[str]:
    count, tokens = options.answers, options.tokens
    for dtype in (torch.float32, torch.bfloat16):
        model = _model(device, dtype)
        prompts = torch.randint(4096, (count, 16), device=device)
        with torch.inference_mode():
            together = _answers(model, prompts, range(count), tokens)
            alone = [_answers(model, prompts[n : n + 1], [n], tokens)[0] for n in range(count)]
        same = sum(one == other for one, other in zip(alone, together, strict=True))
        until = sum(_common(one, other) for one, other in zip(alone, together, strict=True))
        name = str(dtype).removeprefix("torch.")
        yield (
            f"{name:<9} {same} of {count} seeded answers the same alone and in one batch;"
            f" {until / (count * tokens):.3f} of their tokens come before the first other one"
        )


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    differs = [a != b for a, b in zip(one, other, strict=True)]
    return differs.index(True) if True in differs else len(differs)


def report(options: argparse.Namespace) -> Iterator[str]:
    """Measure, and yield a line for each result."""
    device = torch.device(options.device)
    yield f"{device}, torch {torch.__version__}, {torch.get_num_threads()} threads; {machine()}"
    yield from _costs(options, device)
    yield from _agreement(options, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    card = torch.accelerator.current_accelerator()
    parser.add_argument("--device", default="cpu" if card is None else card.type)
    parser.add_argument("--vocabulary", type=int, default=151_936, help="values of a row")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--answers", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    for line in report(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
