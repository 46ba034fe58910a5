"""A job to a prompt that fits: token ids, how long the answer may get, and what was altered.

The rules of limits stand here and nowhere else; engines take the result as it is. Nothing is ever
cut: a prompt that does not fit is refused with both numbers, unless the job lets whole old pairs of
its history go, which is then said. Blocking, as renderers are: call it off the event loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qwen_openai.core import Job, Message
from qwen_openai.errors import ContextLengthExceeded, InvalidRequest
from qwen_openai.grammars.build import whole
from qwen_openai.prompting.bpe import TooLong
from qwen_openai.prompting.renderer import Around, PromptRenderer, Rendered, Tokenised

# A prompt that is too long is still counted exactly up to this many tokens over the limit.
_COUNTED_BEYOND = 32_768
# When old pairs are dropped, up to a quarter of the window is kept free for the answer.
_ANSWER_SHARE = 4


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine runs. ``max_tokens`` is at least 1, and fits behind ``ids`` in the context;
    ``changes`` are short phrases on what differs from the request.

    ``in_thought`` says that ``ids`` end inside a thought which the template opened. ``grammar`` is
    what the answer must match from its first token on, thoughts included, as llguidance reads it.
    ``stop_ids`` end the answer beside the model's own stop tokens."""

    ids: list[int]
    max_tokens: int
    changes: tuple[str, ...] = ()
    in_thought: bool = False
    grammar: str | None = None
    stop_ids: tuple[int, ...] = ()


def prepare(job: Job, renderer: PromptRenderer, *, context: int, default_max_tokens: int) -> Prompt:
    """Render ``job`` and bound its answer.

    ``context`` is tokens of prompt and answer together; ``default_max_tokens`` bounds the answer of
    a job that states neither ``max_tokens`` nor ``max_total``. Raises ContextLengthExceeded when
    the prompt leaves no room for one token, InvalidRequest when the template refuses the messages,
    for token ids that are none, and for more ``min_tokens`` than there can be.
    """
    _check_ids(job, renderer)
    window = context if job.max_total is None else min(job.max_total, context)
    changes = []
    if job.max_total is not None and job.max_total > context:
        changes.append(f"max_length clamped to {context}")
    known: Tokenised = {}
    messages: Sequence[Message] = job.messages
    if job.drop_oldest_pairs:
        answer = min(job.sampling.max_tokens or default_max_tokens, window // _ANSWER_SHARE)
        messages, dropped = _drop_pairs(job, renderer, window - max(answer, 1), known)
        if dropped:
            changes.append(f"history: dropped {dropped} oldest pair{'s' if dropped > 1 else ''}")
    rendered = _render(job, messages, renderer, window, context, known)
    limit, clamped = _room(job, window - len(rendered.ids), default_max_tokens)
    return Prompt(
        ids=rendered.ids,
        max_tokens=limit,
        changes=(*changes, *clamped),
        in_thought=rendered.in_thought,
        grammar=_grammar(job, rendered.in_thought),
        stop_ids=_stop_ids(job, renderer),
    )


def prompt_ids(job: Job, renderer: PromptRenderer) -> list[int]:
    """Return the ids of a job's prompt, whatever their number. Raises InvalidRequest."""
    return _compose(job, job.messages, renderer, None, {}).ids


def _compose(
    job: Job,
    messages: Sequence[Message],
    renderer: PromptRenderer,
    limit: int | None,
    known: Tokenised,
) -> Rendered:
    if job.prompt is not None:
        return Rendered(renderer.raw(job.prompt, limit))
    return renderer.compose(
        messages,
        Around.of(job),
        continue_final=job.continue_final_message,
        limit=limit,
        known=known,
    )


def _room(job: Job, room: int, default_max_tokens: int) -> tuple[int, tuple[str, ...]]:
    """Return how long the answer may get where ``room`` tokens are left, and what to say of it."""
    asked, least = job.sampling.max_tokens, job.sampling.min_tokens
    said: tuple[str, ...] = ()
    if asked is None:
        default = room if job.max_total is not None else max(default_max_tokens, least)
        limit = min(default, room)
    else:
        limit = min(asked, room)
        # On the tutorial's route nobody asked: the route put its own default there.
        if asked > room and not (job.drop_oldest_pairs and job.max_total is None):
            said = (f"max_tokens clamped to {room}",)
    if least > limit:
        raise InvalidRequest(
            f"min_tokens is {least}, and the answer can have at most {limit} tokens here. Lower it,"
            " or make the prompt shorter.",
            param="min_tokens",
        )
    return limit, said


def _grammar(job: Job, in_thought: bool) -> str | None:
    if job.grammar is None:
        return None
    if in_thought:
        return whole(job.grammar.rules, "open")
    return whole(job.grammar.rules, "may" if job.thinks else "none")


def _stop_ids(job: Job, renderer: PromptRenderer) -> tuple[int, ...]:
    ids = job.sampling.stop_token_ids
    fills_in = job.prompt is not None and job.prompt.suffix is not None
    if fills_in and not job.sampling.ignore_eos:
        ids += renderer.fill_in_stop_ids
    return tuple(dict.fromkeys(ids))


def _check_ids(job: Job, renderer: PromptRenderer) -> None:
    named = {
        "stop_token_ids": job.sampling.stop_token_ids,
        "logit_bias": tuple(number for number, _ in job.sampling.logit_bias),
    }
    for param, ids in named.items():
        for number in ids:
            if not renderer.knows(number):
                raise InvalidRequest(
                    f"{param} names the token {number}, which this model's vocabulary has not."
                    " Token ids differ between models: POST /tokenize tells this one's.",
                    param=param,
                )


def _render(
    job: Job,
    messages: Sequence[Message],
    renderer: PromptRenderer,
    window: int,
    context: int,
    known: Tokenised,
) -> Rendered:
    """Return the prompt, which leaves room for one token in ``window``."""
    try:
        rendered = _compose(job, messages, renderer, window + _COUNTED_BEYOND, known)
    except TooLong as exc:
        raise _too_long(job, f"at least {exc.at_least}", window, context) from None
    if len(rendered.ids) >= window:
        raise _too_long(job, str(len(rendered.ids)), window, context)
    return rendered


def _too_long(job: Job, tokens: str, window: int, context: int) -> ContextLengthExceeded:
    limit = f"This model's maximum context length is {context} tokens"
    if window < context:
        limit = f"This request's max_length is {window} tokens for prompt and answer together"
    what = "messages" if job.prompt is None else "prompt"
    return ContextLengthExceeded(
        f"{limit}. However, your {what} resulted in {tokens} tokens, and the answer needs at"
        f" least one more. Please reduce the length of the {what}.",
        param=what,
    )


def _drop_pairs(
    job: Job, renderer: PromptRenderer, goal: int, known: Tokenised
) -> tuple[Sequence[Message], int]:
    """Return the messages without as many oldest pairs as keep the prompt above ``goal`` tokens.

    A pair is a user's message and what answers it, up to the next user's message. System messages
    and the last user's message always stay, even if the prompt is then still too long.
    """
    starts = [n for n, message in enumerate(job.messages) if message.role == "user"]

    def without(pairs: int) -> Sequence[Message]:
        if not pairs:
            return job.messages
        return [
            message
            for n, message in enumerate(job.messages)
            if n >= starts[pairs] or message.role == "system"
        ]

    def fits(pairs: int) -> bool:
        try:
            _compose(job, without(pairs), renderer, goal, known)
        except TooLong:
            return False
        return True

    if len(starts) < 2 or fits(0):
        return job.messages, 0
    # Fewer messages make a shorter prompt: find the first number that fits by halving.
    fewest, most = 1, len(starts) - 1
    while fewest < most:
        middle = (fewest + most) // 2
        if fits(middle):
            most = middle
        else:
            fewest = middle + 1
    return without(fewest), fewest
