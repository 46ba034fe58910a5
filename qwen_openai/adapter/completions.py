"""A valid request for completions to the Jobs that engines take: one for each answer to be made.

Pure; knows no tokenizer and no HTTP. A prompt is the caller's own text, without any template, so
nothing is altered in it.
"""

from dataclasses import replace

from qwen_openai.adapter.formats import format_of
from qwen_openai.adapter.limits import Limits
from qwen_openai.adapter.refusals import refuse
from qwen_openai.adapter.sampling import base_sampling
from qwen_openai.core import Grammar, Job, RawPrompt
from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.families import Family
from qwen_openai.protocol.completions import DEFAULT_MAX_TOKENS, CompletionRequest


def completion_jobs(
    request: CompletionRequest,
    *,
    id: str,
    family: Family,
    limits: Limits,
    refuses: frozenset[str] = frozenset(),
) -> tuple[Job, ...]:
    """Return the jobs of a request, prompt by prompt; each prompt's have its `made` as their `n`.

    `family` is the model's row, with what its engine tells of it; `refuses` are the parameters
    that this engine cannot honour. Raises InvalidRequest for more answers than the limits allow and
    for parameters that exclude each other, UnsupportedParameter for what the model or its engine
    cannot do.
    """
    made = request.made
    _check_limits(request, limits)
    if request.suffix and family.fill_in is None:
        raise UnsupportedParameter(
            "The parameter 'suffix' is not supported by this model, which was not trained to fill "
            "in text; leave it out, or use a model that was, such as Qwen2.5-Coder.",
            param="suffix",
        )
    grammar = format_of(request)
    if grammar is not None:
        _check_enforceable(request, grammar)
    if made > (request.n or 1) and "logprobs" in refuses:
        raise UnsupportedParameter(
            "best_of above n needs log probabilities, which the engine that runs this model cannot "
            "tell; leave it out, or serve the model with another engine.",
            param="best_of",
        )
    job = Job(
        id=id,
        model=request.model,
        messages=(),
        sampling=base_sampling(
            request,
            family.sampling,
            max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
            logprobs=_logprobs(request),
        ),
        n=made,
        grammar=grammar,
        watched=request.streams,
        ignored=request.ignored,
    )
    refuse(request, job, refuses)
    prompts = [RawPrompt(prompt, request.suffix or None) for prompt in request.prompts]
    return tuple(
        replace(job, prompt=prompt, choice=place * made + choice)
        for place, prompt in enumerate(prompts)
        for choice in range(made)
    )


def _check_limits(request: CompletionRequest, limits: Limits) -> None:
    """One request may not make more answers of several prompts than of one."""
    made, most = request.made, limits.max_n
    if made > most:
        name = "n" if (request.n or 1) > most else "best_of"
        raise InvalidRequest(
            f"{name} must be an integer between 1 and {most}, got {made}.", param=name
        )
    if len(request.prompts) * made > most:
        raise InvalidRequest(
            f"{len(request.prompts)} prompts with {made} answers each are "
            f"{len(request.prompts) * made} answers; at most {most} are made in one request.",
            param="prompt",
        )


def _check_enforceable(request: CompletionRequest, grammar: Grammar) -> None:
    """Refuse what contradicts a grammar: an answer that may not end where the grammar does."""
    for name, asked in (("ignore_eos", request.ignore_eos), ("min_tokens", request.min_tokens)):
        if asked:
            raise InvalidRequest(
                f"{name} and {grammar.param} exclude each other: an answer that must have a form "
                "ends where the form does. Leave one of them out.",
                param=name,
            )


def _logprobs(request: CompletionRequest) -> int | None:
    """Which of several answers is best, their tokens' probabilities tell."""
    if request.logprobs is None and request.made > (request.n or 1):
        return 0
    return request.logprobs
