"""A Job and its prompt as a llama.cpp completion request. Pure: no I/O.

Every sampling field is sent with every request, because llama.cpp's defaults are not OpenAI's
(top_k 40, min_p 0.05, temperature after top_p). What has no field of its own there, `min_tokens`,
is said as a grammar over token ids.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from qwen_openai.core import Job, Sampling
from qwen_openai.errors import UnsupportedParameter
from qwen_openai.prompting.prepare import Prompt

# This seed means "random" to llama.cpp.
_RANDOM_SEED = 0xFFFFFFFF
# Far from the neighbours, which other choices have.
_SEED_STRIDE = 0x9E3779B1
_RUNS = re.compile(rb"[^\0]+")

# The order of vLLM and Hugging Face: temperature shapes the distribution that min_p and top_p cut.
# top_k keeps the same tokens before or after temperature, and is cheapest first.
_SAMPLERS = ("penalties", "top_k", "temperature", "min_p", "top_p")

# llama.cpp hands what follows this line to llguidance.
_LLGUIDANCE = "%llguidance {}\n"

_BAN = -100.0
# Below every token that is not banned, but still there for a grammar that leaves nothing else.
_LAST_RESORT = -1000.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """What requests must know of a vocabulary.

    ``stop_ids`` end an answer by themselves, as the model's family has it; ``special`` are its
    control tokens, ``size`` is one more than the highest id, ``piece`` gives the bytes of an id,
    none for an id that has no text.
    """

    stop_ids: frozenset[int]
    special: frozenset[int]
    size: int
    piece: Callable[[int], bytes]


def to_uint32(seed: int | None, choice: int) -> int:
    """Map any int64 seed and the choice's index to what llama.cpp takes; None draws a fresh one."""
    if seed is None:
        return secrets.randbelow(_RANDOM_SEED)
    wide = seed % 2**64
    return ((wide ^ (wide >> 32)) % 2**32 + choice) % _RANDOM_SEED


Body = dict[str, object]
"""A request to llama.cpp, before it is JSON."""


def request_body(
    job: Job, prompt: Prompt, tokens: Tokens, *, context: int, prompt_cache: bool
) -> Body:
    """The body of a completion request.

    Raises UnsupportedParameter for a stop token that is part of a character, and for `min_tokens`
    beside a grammar.
    """
    sampling = job.sampling
    greedy = sampling.is_greedy
    _check_stops(sampling, tokens)
    ignore_eos, bias = _biases(sampling, prompt, tokens)
    return {
        "prompt": prompt.ids,
        "n_predict": prompt.max_tokens,
        "stream": True,
        # Chunks then carry token ids and the exact count so far.
        "verbose": True,
        # An empty chunk as prefill begins and after each of its batches: places to cancel.
        "return_progress": True,
        "cache_prompt": prompt_cache,
        "seed": to_uint32(sampling.seed, job.choice),
        "samplers": _SAMPLERS,
        "temperature": 1.0 if greedy else sampling.temperature,
        "top_k": 1 if greedy else sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": context,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "typical_p": 1.0,
        "top_n_sigma": -1.0,
        "dry_multiplier": 0.0,
        "xtc_probability": 0.0,
        "dynatemp_range": 0.0,
        "mirostat": 0,
        "adaptive_target": -1.0,
        "min_keep": 0,
        "n_keep": 0,
        # A token's own logprob comes only beside at least one alternative.
        "n_probs": 0 if sampling.logprobs is None else max(sampling.logprobs, 1),
        "post_sampling_probs": False,
        "n_cache_reuse": 0,
        "ignore_eos": ignore_eos,
        "logit_bias": bias,
        "grammar": _grammar(sampling, prompt, tokens),
        "stop": [],
    }


def step_body(body: Body, ids: Sequence[int], allowed: bytes, number: int) -> Body:
    """The body of a request that goes on with an answer by one token: the ``number``-th of those,
    from 1 on, behind ``ids``; ``allowed`` has a byte for each id, 0 for one that may not come.

    What was said before is in the slot's memory, if nobody took the slot meanwhile.
    """
    ranges = ",".join(f"{run.start()}-{run.end() - 1}" for run in _RUNS.finditer(allowed))
    seed = cast("int", body["seed"])
    return {
        **body,
        "prompt": ids,
        "n_predict": 1,
        "cache_prompt": True,
        "seed": (seed + number * _SEED_STRIDE) % _RANDOM_SEED,
        "grammar": f"{_LLGUIDANCE}start: <[{ranges}]>\n",
    }


def named(body: Body) -> Body:
    """The same request, with an answer that names a token which is only a part of a character. It
    comes in one chunk at the end, so it cannot be left before."""
    return {**body, "stream": False, "return_tokens": True, "return_progress": False}


def stop_ids(prompt: Prompt, tokens: Tokens) -> frozenset[int]:
    """The ids at which the answer ends, wherever they come from."""
    return tokens.stop_ids.union(prompt.stop_ids)


def _check_stops(sampling: Sampling, tokens: Tokens) -> None:
    """llama.cpp sends the tokens of one character together and names the last: one of the others
    would be missed."""
    for number in sampling.stop_token_ids:
        try:
            tokens.piece(number).decode()
        except UnicodeDecodeError:
            raise UnsupportedParameter(
                f"stop_token_ids names {number}, which is only a part of a character. This engine "
                "cannot end an answer inside a character; name a token of whole ones.",
                param="stop_token_ids",
            ) from None


def _biases(
    sampling: Sampling, prompt: Prompt, tokens: Tokens
) -> tuple[bool, list[tuple[int, float | bool]]]:
    """Return llama.cpp's own `ignore_eos`, and biases; False bans a token for good.

    A grammar may come to a place where it allows nothing but banned tokens. llama.cpp would then
    pick any token of all, against the grammar; so bans give way there.
    """
    ban: float | bool = False if prompt.grammar is None else _LAST_RESORT
    bias = [(number, ban if weight <= _BAN else weight) for number, weight in sampling.logit_bias]
    if not sampling.ignore_eos:
        return False, bias
    own = tokens.stop_ids.difference(prompt.stop_ids)
    # llama.cpp knows best which tokens end an answer, but spares none of them for the caller.
    spared = not (tokens.special | tokens.stop_ids).isdisjoint(prompt.stop_ids)
    if spared:
        own |= tokens.special.difference(prompt.stop_ids)
    bias += [(number, ban) for number in sorted(own)]
    return not spared and prompt.grammar is None, bias


def _grammar(sampling: Sampling, prompt: Prompt, tokens: Tokens) -> str:
    if prompt.grammar is not None:
        if sampling.min_tokens:
            raise UnsupportedParameter(
                "min_tokens cannot be used here together with tools or a format that the answer "
                "is held to: it ends where that is complete. Leave min_tokens out.",
                param="min_tokens",
            )
        return _LLGUIDANCE + prompt.grammar
    if sampling.min_tokens:
        return _LLGUIDANCE + _at_least(sampling.min_tokens, prompt, tokens)
    return ""


def _at_least(count: int, prompt: Prompt, tokens: Tokens) -> str:
    """A grammar of ``count`` tokens none of which ends the answer, then any."""
    ending = tokens.special | tokens.stop_ids | frozenset(prompt.stop_ids)
    first = ",".join(f"{low}-{high}" for low, high in _gaps(ending, tokens.size))
    return f"start: <[{first}]>{{{count}}} <[0-{tokens.size - 1}]>*\n"


def _gaps(numbers: Iterable[int], size: int) -> Iterable[tuple[int, int]]:
    """Yield the ranges below ``size`` that hold none of ``numbers``, both ends within."""
    begin = 0
    for number in (*sorted(number for number in numbers if number < size), size):
        if begin < number:
            yield begin, number - 1
        begin = number + 1


def penalty_changes(sampling: Sampling) -> tuple[str, ...]:
    """What a client should know about penalties here: OpenAI's do not count the prompt's tokens."""
    return tuple(
        f"{name} counts the prompt's tokens too"
        for name, value in (
            ("presence_penalty", sampling.presence_penalty),
            ("frequency_penalty", sampling.frequency_penalty),
        )
        if value != 0
    )
