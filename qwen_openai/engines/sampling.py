"""One request's way from a row of logits to a token: penalties, bias, mask, filters, the draw.

Works on tensors where they are; the host learns one number a token, and more only where logprobs
are asked for. Nothing is computed that the request did not ask for, and chance comes from the
request's own generator, never from the global one. Knows no model and no vocabulary.

The order is that of transformers' `generate`: penalties, bias, mask, temperature, top_k, top_p,
min_p. The repetition penalty is defined as there (over prompt and answer), presence and frequency
penalty and the bias as in OpenAI's API (penalties over the answer). Log probabilities are those of
the row as the model gave it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from qwen_openai.core import Sampling
from qwen_openai.errors import EngineFailed

# The likeliest tokens nearly always hold all of the nucleus; sorting the whole vocabulary takes
# milliseconds on a CPU.
_NUCLEUS = 1024
_SMALLEST = torch.finfo(torch.float32).tiny
_SEEDS = 2**64
# What OpenAI's API says of a token without a chance; JSON has no infinity.
_LEAST = -9999.0
# The bias that bans a token.
_BAN = -100.0
# What a ban takes off a logit: no chance is left beside any token that is not banned, but a number
# is, for a grammar that leaves nothing else.
_BANNED = 1e9


@dataclass(frozen=True, slots=True)
class Picked:
    """A token, and where they are asked for the natural logarithms of the model's own probability
    of it and of the likeliest tokens, as (id, logarithm), likeliest first."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for one token alone. ``barred`` are ids that are not picked, on the logits'
    device; ``allowed`` has a byte for each id of the row, 0 for those that a grammar leaves out:
    where all others are barred or banned, one of them is picked all the same."""

    barred: torch.Tensor | None = None
    allowed: bytes | None = None


_FREE = Rules()


class Sampler:
    """Picks the tokens of one answer, in order; remembers what its penalties need."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], device: torch.device) -> None:
        """``prompt`` is the ids in front of the answer; ``device`` is where the logits will be."""
        self._sampling = sampling
        # One candidate is no chance: nothing to draw, nothing to filter.
        self._greedy = sampling.is_greedy or sampling.top_k == 1
        self._repeated: _Distinct | None = None
        if sampling.repetition_penalty != 1:
            self._repeated = _Distinct(device, prompt)
        self._answered: _Distinct | None = None
        if sampling.presence_penalty or sampling.frequency_penalty:
            self._answered = _Distinct(device)
        self._biased = _Biased(device, sampling.logit_bias) if sampling.logit_bias else None
        self._generator: torch.Generator | None = None
        if not self._greedy:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed % _SEEDS)

    def pick(self, logits: torch.Tensor, rules: Rules = _FREE) -> Picked:
        """Return the next token for one row of logits, which may be altered.

        Raises EngineFailed when the logits are no numbers, and when no token is left.
        """
        with torch.inference_mode():
            row = logits.float()
            likely = None if self._sampling.logprobs is None else row.log_softmax(0)
            self._penalise(row)
            if self._biased is not None:
                self._biased.apply(row)
            _rule(row, rules)
            picked, score = self._best(row) if self._greedy else self._draw(row)
            # The check rides along: what is no number is picked before all others.
            token = int(torch.where(score.isfinite(), picked, -1))
            if token < 0:
                raise _no_token(row)
            for seen in (self._repeated, self._answered):
                if seen is not None:
                    seen.add(token)
            return Picked(token) if likely is None else self._with_logprobs(token, likely)

    def _with_logprobs(self, token: int, likely: torch.Tensor) -> Picked:
        values, ids = likely.topk(min(self._sampling.logprobs or 0, likely.numel()))
        own, *others = torch.cat([likely[token : token + 1], values]).tolist()
        if math.isnan(own):
            raise _no_numbers()
        top = zip(ids.tolist(), (max(value, _LEAST) for value in others), strict=True)
        return Picked(token, max(own, _LEAST), tuple(top))

    def _penalise(self, row: torch.Tensor) -> None:
        sampling = self._sampling
        if self._repeated is not None:
            ids, _ = self._repeated.seen()
            scores = row[ids]
            penalty = sampling.repetition_penalty
            row[ids] = torch.where(scores < 0, scores * penalty, scores / penalty)
        if self._answered is not None:
            ids, counts = self._answered.seen()
            row[ids] -= counts * sampling.frequency_penalty + sampling.presence_penalty

    @staticmethod
    def _best(row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        picked = row.argmax()
        return picked, row[picked]

    def _draw(self, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sampling = self._sampling
        if sampling.temperature != 1:
            row = row / sampling.temperature
        probabilities, ids = self._candidates(row)
        if sampling.top_p < 1:
            # A token stays while those before it hold less than top_p: the first one always.
            before = probabilities.cumsum(0)[:-1]
            probabilities[1:] *= before < sampling.top_p
        if sampling.min_p > 0:
            floor = probabilities.max() * sampling.min_p
            probabilities *= probabilities >= floor
        # The largest of p/e with exponential e is p-distributed. torch.multinomial does the same,
        # but ends a whole CUDA context when a probability is no number.
        noise = torch.empty_like(probabilities).exponential_(generator=self._generator)
        chosen = (probabilities / noise.clamp_min_(_SMALLEST)).argmax()
        return chosen if ids is None else ids[chosen], probabilities[chosen]

    def _candidates(self, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the probabilities that come into question, and their ids.

        Likeliest first where top_k or top_p ask for it; without ids, all in the row's order.
        """
        sampling = self._sampling
        if sampling.top_k > 0:
            values, ids = row.topk(min(sampling.top_k, row.numel()))
            return values.softmax(0), ids
        if sampling.top_p >= 1:
            return row.softmax(0), None
        probabilities = row.softmax(0)
        # To look at the sum costs a GPU more than to sort.
        if row.device.type == "cpu" and row.numel() > _NUCLEUS:
            likeliest, ids = probabilities.topk(_NUCLEUS)
            if float(likeliest.sum()) >= sampling.top_p:
                return likeliest, ids
        return probabilities.sort(descending=True)


def pick_all(
    logits: torch.Tensor, samplers: Sequence[Sampler], rules: Sequence[Rules]
) -> list[Picked | EngineFailed]:
    """Pick the next token of several answers at once.

    ``logits`` has a row for each, shape (answers, vocabulary), and may be altered. A row from which
    no token can be picked has its failure in the list; the others do not notice.
    """
    picked: list[Picked | EngineFailed] = []
    for row, sampler, rule in zip(logits, samplers, rules, strict=True):
        try:
            picked.append(sampler.pick(row, rule))
        except EngineFailed as failure:
            picked.append(failure)
    return picked


def _rule(row: torch.Tensor, rules: Rules) -> None:
    """Apply, in place, what holds for this token alone."""
    if rules.allowed is None:
        if rules.barred is not None:
            row[rules.barred] = -torch.inf
        return
    if rules.barred is not None:
        row[rules.barred] -= _BANNED
    # torch warns of bytes, which nobody may write to.
    mask = torch.frombuffer(bytearray(rules.allowed), dtype=torch.uint8).to(row.device)
    known = min(len(mask), len(row))
    row[:known].masked_fill_(mask[:known] == 0, -torch.inf)
    row[known:] = -torch.inf


def _no_token(row: torch.Tensor) -> EngineFailed:
    """Why no token of ``row``, penalised and barred, can be picked."""
    if bool(row.isneginf().all()):
        return EngineFailed(
            "Every token of the model would end the answer, and it is not to end yet: ask for a"
            " smaller min_tokens (QwenChat's min_new_tokens), or for fewer tokens that end it."
        )
    return _no_numbers()


def _no_numbers() -> EngineFailed:
    return EngineFailed(
        "The model computed values that are no numbers: its precision is too low for its"
        " weights. Load it as bfloat16 or float32."
    )


class _Biased:
    """What is added to the logits of some tokens, on the device."""

    def __init__(self, device: torch.device, bias: Sequence[tuple[int, float]]) -> None:
        self._ids = torch.tensor([token for token, _ in bias], device=device)
        values = [-_BANNED if value <= _BAN else value for _, value in bias]
        self._values = torch.tensor(values, dtype=torch.float32, device=device)

    def apply(self, row: torch.Tensor) -> None:
        row.index_add_(0, self._ids, self._values)


class _Distinct:
    """Tokens seen so far, each once, and how often, on the device: what penalties work on."""

    def __init__(self, device: torch.device, tokens: Sequence[int] = ()) -> None:
        self._places: dict[int, int] = {}
        for token in tokens:
            self._places.setdefault(token, len(self._places))
        size = 2 * len(self._places) + 64
        self._ids = torch.zeros(size, dtype=torch.long, device=device)
        self._ids[: len(self._places)] = torch.tensor(list(self._places), dtype=torch.long)
        self._counts = torch.ones(size, device=device)

    def seen(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids and their counts, side by side."""
        size = len(self._places)
        return self._ids[:size], self._counts[:size]

    def add(self, token: int) -> None:
        place = self._places.get(token)
        if place is not None:
            self._counts[place] += 1
            return
        place = self._places[token] = len(self._places)
        if place == len(self._ids):
            self._ids = torch.cat([self._ids, torch.zeros_like(self._ids)])
            self._counts = torch.cat([self._counts, torch.ones_like(self._counts)])
        self._ids[place] = token
