"""Sampling as it is defined, slowly: one value after another, in plain Python's doubles.

Penalties and bias as OpenAI's API reference has them (presence and frequency: over the answer),
repetition penalty, top_k and min_p as vLLM's `SamplingParams`, order and nucleus as transformers'.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence

from qwen_openai.core import Sampling


def changed(
    logits: Sequence[float],
    s: Sampling,
    prompt: Collection[int],
    answer: Sequence[int],
    barred: Collection[int] = (),
    allowed: bytes | None = None,
) -> list[float]:
    """The logits as all but the filters leave them."""
    values = list(logits)
    for n in {*prompt, *answer}:
        penalty = s.repetition_penalty
        values[n] = values[n] * penalty if values[n] < 0 else values[n] / penalty
    for n, count in Counter(answer).items():
        values[n] -= count * s.frequency_penalty + s.presence_penalty
    for n, bias in s.logit_bias:
        values[n] += bias if bias > -100 else -1e9
    for n in barred:
        # A grammar may leave nothing but what is barred.
        values[n] += -math.inf if allowed is None else -1e9
    if allowed is not None:
        for n in range(len(values)):
            if n >= len(allowed) or not allowed[n]:
                values[n] = -math.inf
    return values


def probabilities(values: Sequence[float], s: Sampling, slack: float = 0.0) -> dict[int, float]:
    """The candidates and their probabilities. ``slack`` moves the limits of top_p and min_p."""
    order = sorted(range(len(values)), key=lambda n: -values[n])
    if s.top_k:
        order = order[: s.top_k]
    top = values[order[0]]
    weights = {n: math.exp((values[n] - top) / s.temperature) for n in order}
    total = math.fsum(weights.values())
    kept: dict[int, float] = {}
    for n in order:
        if kept and s.top_p < 1 and math.fsum(kept.values()) >= (s.top_p + slack) * total:
            break
        kept[n] = weights[n]
    kept = {n: weight for n, weight in kept.items() if weight >= s.min_p - slack}
    total = math.fsum(kept.values())
    return {n: weight / total for n, weight in kept.items() if weight}


def logprobs(logits: Sequence[float]) -> list[float]:
    """The natural logarithms of the model's own probabilities."""
    top = max(logits)
    total = top + math.log(math.fsum(math.exp(value - top) for value in logits))
    return [value - total for value in logits]
