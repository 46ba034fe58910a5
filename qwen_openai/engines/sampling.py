"""From a step's logits to tokens, all answers at once: penalties, bias, mask, filters, the draw.

Works on tensors where they are. The host waits once a step, for all that it is to know; what no
request of the batch asked for is not computed; and chance comes from the request's own source, so
that an answer's tokens do not depend on its company. Knows no model and no vocabulary.

The order is that of transformers' `generate`: penalties, bias, mask, temperature, top_k, top_p,
min_p. The repetition penalty is defined as there (over prompt and answer), presence and frequency
penalty and the bias as in OpenAI's API (penalties over the answer). Log probabilities are those of
the row as the model gave it.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from qwen_openai.core import Sampling
from qwen_openai.engines.torch_model.candidates import likeliest, onto, weigh
from qwen_openai.engines.torch_model.chance import Chance, exponential
from qwen_openai.errors import EngineFailed

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
        self.sampling = sampling
        self.repeated: _Repeated | None = None
        if sampling.repetition_penalty != 1:
            self.repeated = _Repeated(device, prompt)
        self.answered: _Answered | None = None
        if sampling.presence_penalty or sampling.frequency_penalty:
            self.answered = _Answered()
        self.bias = _Bias(device, sampling.logit_bias) if sampling.logit_bias else None
        # One candidate is no chance: nothing to draw, nothing to filter.
        is_greedy = sampling.is_greedy or sampling.top_k == 1
        self.chance = None if is_greedy else Chance(sampling.seed)

    def pick(self, logits: torch.Tensor, rules: Rules = _FREE) -> Picked:
        """Return the next token for one row of logits, which may be altered.

        Raises EngineFailed when the logits are no numbers, and when no token is left.
        """
        (picked,) = pick_all(logits.unsqueeze(0), [self], [rules])
        if isinstance(picked, EngineFailed):
            raise picked
        return picked

    def take(self, token: int) -> None:
        """The answer goes on with ``token``."""
        if self.repeated is not None:
            self.repeated.add(token)
        if self.answered is not None:
            self.answered.add(token)


def pick_all(
    logits: torch.Tensor, samplers: Sequence[Sampler], rules: Sequence[Rules]
) -> list[Picked | EngineFailed]:
    """Pick the next token of several answers at once.

    ``logits`` has a row for each, shape (answers, vocabulary), and may be altered. A row from which
    no token can be picked has its failure in the list; the others do not notice.
    """
    if not len(logits) == len(samplers) == len(rules):
        raise ValueError("There must be a row, a sampler and rules for each answer.")
    if not samplers:
        return []
    with torch.inference_mode():
        rows = logits.float().contiguous()
        likely = _Likely.of(rows, samplers)
        _change(rows, samplers, rules)
        chosen = _choose(rows, samplers)
        if likely is None:
            tokens = chosen.tolist()
            said: dict[int, Picked | EngineFailed] = {}
        else:
            tokens, said = likely.tell(chosen)
        picked: list[Picked | EngineFailed] = []
        for row, token in enumerate(tokens):
            picked.append(_no_token(rows[row]) if token < 0 else said.get(row) or Picked(token))
    for sampler, one in zip(samplers, picked, strict=True):
        if isinstance(one, Picked):
            sampler.take(one.token)
    return picked


def _choose(rows: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """Return the token of each row, -1 where there is none."""
    chances = {n: one.chance for n, one in enumerate(samplers) if one.chance is not None}
    if len(chances) < len(samplers):
        best = rows.argmax(1, keepdim=True)
        # The check rides along: what is no number is picked before all others.
        chosen = torch.where(rows.gather(1, best).isfinite(), best, -1).squeeze(1)
    else:
        chosen = torch.empty(len(rows), dtype=torch.long, device=rows.device)
    for some in weigh(rows, {row: samplers[row].sampling for row in chances}):
        keys = torch.tensor([[chances[row].key()] for row in some.rows])
        # torch.multinomial does the same, but ends a whole CUDA context when a probability is no
        # number.
        score = some.weights.div_(exponential(onto(rows.device, keys), some.ids))
        best = score.argmax(1, keepdim=True)
        ids = some.ids.expand_as(score).gather(1, best)
        tokens = torch.where(score.gather(1, best).isfinite(), ids, -1)
        chosen.index_copy_(0, some.index, tokens.squeeze(1))
    return chosen


class _Likely:
    """What the model itself says of the rows that are to tell it, before anything changes them."""

    def __init__(self, rows: torch.Tensor, counts: dict[int, int]) -> None:
        self._counts = counts
        self._index = onto(rows.device, torch.tensor(list(counts)))
        self._rows = rows.index_select(0, self._index)
        self._total = self._rows.logsumexp(1, keepdim=True)
        self._most = min(max(counts.values()), rows.shape[1])
        if self._most:
            values, self._ids = likeliest(self._rows, self._most)
            self._values = values.sub_(self._total)

    @classmethod
    def of(cls, rows: torch.Tensor, samplers: Sequence[Sampler]) -> "_Likely | None":
        asked = [sampler.sampling.logprobs for sampler in samplers]
        counts = {row: count for row, count in enumerate(asked) if count is not None}
        return cls(rows, counts) if counts else None

    def tell(self, chosen: torch.Tensor) -> tuple[list[int], dict[int, Picked | EngineFailed]]:
        """Bring the chosen tokens to the host, and what is to be said of them."""
        own = self._rows.gather(1, chosen[self._index].clamp(min=0).unsqueeze(1)) - self._total
        parts = [chosen, own]
        if self._most:
            parts += [self._values, self._ids]
        # One tensor, one wait: a double holds any id.
        told = torch.cat([part.flatten().double() for part in parts]).tolist()
        tokens = [int(token) for token in told[: len(chosen)]]
        owns = told[len(chosen) :]
        values = owns[len(self._counts) :]
        ids = values[len(self._counts) * self._most :]
        said: dict[int, Picked | EngineFailed] = {}
        for n, (row, count) in enumerate(self._counts.items()):
            if math.isnan(owns[n]):
                said[row] = _no_numbers()
                continue
            top = slice(n * self._most, n * self._most + min(count, self._most))
            pairs = zip(ids[top], values[top], strict=True)
            logprobs = tuple((int(token), max(value, _LEAST)) for token, value in pairs)
            said[row] = Picked(tokens[row], max(owns[n], _LEAST), logprobs)
        return tokens, said


def _change(rows: torch.Tensor, samplers: Sequence[Sampler], rules: Sequence[Rules]) -> None:
    """Apply, in place, all that changes logits before chance comes in."""
    numbered = list(enumerate(samplers))
    repeated = [(n, one.repeated) for n, one in numbered if one.repeated is not None]
    if repeated:
        _penalise_repeated(rows, repeated, samplers)
    answered = [(n, one.answered) for n, one in numbered if one.answered is not None]
    if any(seen.ids for _, seen in answered):
        _penalise_answered(rows, answered, samplers)
    biased = [(n, one.bias) for n, one in numbered if one.bias is not None]
    if biased:
        places, _ = _places(rows, [(n, bias.ids) for n, bias in biased])
        rows.view(-1).index_add_(0, places, torch.cat([bias.values for _, bias in biased]))
    barred = [(n, rule.barred) for n, rule in enumerate(rules) if rule.barred is not None]
    if barred:
        places, which = _places(rows, barred)
        # A mask goes before: of what it leaves, a token must stay.
        given = [-torch.inf if rules[n].allowed is None else -_BANNED for n, _ in barred]
        amounts = onto(rows.device, torch.tensor(given, dtype=torch.float32))[which]
        rows.view(-1).index_add_(0, places, amounts)
    allowed = [(n, rule.allowed) for n, rule in enumerate(rules) if rule.allowed is not None]
    if allowed:
        _mask(rows, allowed)


def _penalise_repeated(
    rows: torch.Tensor, repeated: Sequence[tuple[int, "_Repeated"]], samplers: Sequence[Sampler]
) -> None:
    seen = [(n, one.prompt) for n, one in repeated]
    fresh = [(n, one.fresh) for n, one in repeated]
    places, which = _places(rows, seen, fresh)
    penalties = [samplers[n].sampling.repetition_penalty for n, _ in (*seen, *fresh)]
    penalty = onto(rows.device, torch.tensor(penalties, dtype=torch.float32))[which]
    flat = rows.view(-1)
    scores = flat[places]
    flat[places] = torch.where(scores < 0, scores * penalty, scores / penalty)


def _penalise_answered(
    rows: torch.Tensor, answered: Sequence[tuple[int, "_Answered"]], samplers: Sequence[Sampler]
) -> None:
    places, which = _places(rows, [], [(n, one.ids) for n, one in answered])
    wishes = [samplers[n].sampling for n, _ in answered]
    settings = [[s.frequency_penalty, s.presence_penalty] for s in wishes]
    table = onto(rows.device, torch.tensor(settings, dtype=torch.float32))
    frequency, presence = table[which].unbind(1)
    counts = onto(rows.device, _joined([one.counts for _, one in answered]))
    rows.view(-1).index_add_(0, places, counts * frequency + presence, alpha=-1)


def _mask(rows: torch.Tensor, allowed: Sequence[tuple[int, bytes]]) -> None:
    size = rows.shape[1]
    # An id that a mask does not know is not allowed.
    joined = bytearray().join(mask[:size].ljust(size, b"\0") for _, mask in allowed)
    masks = onto(rows.device, torch.frombuffer(joined, dtype=torch.uint8)).view(-1, size)
    numbers = [n for n, _ in allowed]
    if len(numbers) == numbers[-1] - numbers[0] + 1:
        rows[numbers[0] : numbers[-1] + 1].masked_fill_(masks == 0, -torch.inf)
        return
    index = onto(rows.device, torch.tensor(numbers))
    rows.index_copy_(0, index, rows[index].masked_fill_(masks == 0, -torch.inf))


def _places(
    rows: torch.Tensor,
    there: Sequence[tuple[int, torch.Tensor]],
    here: Sequence[tuple[int, "array[int]"]] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where tokens stand in the flat ``rows``, and the number of the part that each comes from.

    Parts are (row, ids): those that are ``there``, on the device, before those on the host.
    """
    lengths = [len(ids) for _, ids in there] + [len(ids) for _, ids in here]
    parts = [ids for _, ids in there]
    if here:
        parts.append(onto(rows.device, _joined([ids for _, ids in here])))
    offsets = [row * rows.shape[1] for row, _ in (*there, *here)]
    table = onto(rows.device, torch.tensor([lengths, offsets]))
    which = torch.arange(len(lengths), device=rows.device)
    which = which.repeat_interleave(table[0], output_size=sum(lengths))
    return torch.cat(parts).add_(table[1][which]), which


def _joined(arrays: Sequence["array[int]"]) -> torch.Tensor:
    joined = array("q")
    for one in arrays:
        joined.extend(one)
    # torch refuses a buffer without values.
    return (
        torch.frombuffer(joined, dtype=torch.long) if joined else torch.tensor([], dtype=torch.long)
    )


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


class _Bias:
    """What is added to the logits of some tokens, on the device."""

    def __init__(self, device: torch.device, bias: Sequence[tuple[int, float]]) -> None:
        self.ids = torch.tensor([token for token, _ in bias], device=device)
        values = [-_BANNED if value <= _BAN else value for _, value in bias]
        self.values = torch.tensor(values, dtype=torch.float32, device=device)


class _Repeated:
    """Tokens seen so far, each once: those of the prompt on the device, where there may be many,
    and on the host those that the answer added."""

    def __init__(self, device: torch.device, prompt: Sequence[int]) -> None:
        self._known = set(prompt)
        self.prompt = torch.tensor(sorted(self._known), dtype=torch.long, device=device)
        self.fresh: array[int] = array("q")

    def add(self, token: int) -> None:
        if token not in self._known:
            self._known.add(token)
            self.fresh.append(token)


class _Answered:
    """Tokens of the answer, each once, and how often: on the host, where adding is cheap."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self.ids: array[int] = array("q")
        self.counts: array[int] = array("q")

    def add(self, token: int) -> None:
        place = self._places.setdefault(token, len(self.ids))
        if place == len(self.ids):
            self.ids.append(token)
            self.counts.append(0)
        self.counts[place] += 1
