"""How a request wants tokens picked: its own values, else those of the model's makers.

Pure. What is told to clients about each value stands in `protocol.parameters`.
"""

from typing import TypeVar

from qwen_openai.core import Sampling
from qwen_openai.families import Family, SamplingDefaults
from qwen_openai.protocol.chat import ChatRequest
from qwen_openai.protocol.sampling import SamplingFields

_Value = TypeVar("_Value")


def sampling_of(request: ChatRequest, family: Family, *, thinks: bool) -> Sampling:
    """Return every value decided; with `thinks` for an answer that may begin with thoughts."""
    defaults = (family.thinking_sampling if thinks else None) or family.sampling
    return base_sampling(
        request,
        defaults,
        max_tokens=_given(request.max_completion_tokens, request.max_tokens),
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
    )


def base_sampling(
    request: SamplingFields,
    defaults: SamplingDefaults,
    *,
    max_tokens: int | None,
    logprobs: int | None,
) -> Sampling:
    """Return every value decided, for any route; each has its own way to say the last two."""
    return Sampling(
        temperature=_given(request.temperature, defaults.temperature),
        top_p=_given(request.top_p, defaults.top_p),
        top_k=max(_given(request.top_k, defaults.top_k), 0),
        min_p=_given(request.min_p, defaults.min_p),
        presence_penalty=_given(request.presence_penalty, defaults.presence_penalty),
        frequency_penalty=_given(request.frequency_penalty, 0.0),
        repetition_penalty=_given(request.repetition_penalty, defaults.repetition_penalty),
        seed=request.seed,
        max_tokens=max_tokens,
        stop=_stop(request.stop),
        include_stop=request.include_stop_str_in_output is True,
        stop_token_ids=tuple(dict.fromkeys(request.stop_token_ids or ())),
        ignore_eos=request.ignore_eos is True,
        min_tokens=request.min_tokens or 0,
        logit_bias=_logit_bias(request.logit_bias),
        logprobs=logprobs,
    )


def _given(value: _Value | None, default: _Value) -> _Value:
    return default if value is None else value


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(dict.fromkeys(stop))


def _logit_bias(bias: dict[str, float] | None) -> tuple[tuple[int, float], ...]:
    """JSON has no integer keys; the wire model takes one spelling of each."""
    return tuple((int(token), float(value)) for token, value in (bias or {}).items())
