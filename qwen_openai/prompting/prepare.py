"""A job to a prompt that fits: token ids, how long the answer may get, and what was altered.

The rules of limits stand here and nowhere else; engines take the result as it is. Nothing is ever
cut: a prompt that does not fit is refused with both numbers, unless the job lets whole old pairs of
its history go, which is then said. Blocking, as renderers are: call it off the event loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qwen_openai.core import Job, Message
from qwen_openai.errors import ContextLengthExceeded
from qwen_openai.prompting.bpe import TooLong
from qwen_openai.prompting.renderer import PromptRenderer, Tokenised

# A prompt that is too long is still counted exactly up to this many tokens over the limit.
_COUNTED_BEYOND = 32_768
# When old pairs are dropped, up to a quarter of the window is kept free for the answer.
_ANSWER_SHARE = 4


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine runs. ``max_tokens`` is at least 1, and fits behind ``ids`` in the context;
    ``changes`` are short phrases on what differs from the request."""

    ids: list[int]
    max_tokens: int
    changes: tuple[str, ...]


def prepare(job: Job, renderer: PromptRenderer, *, context: int, default_max_tokens: int) -> Prompt:
    """Render ``job`` and bound its answer.

    ``context`` is tokens of prompt and answer together; ``default_max_tokens`` bounds the answer of
    a job that states neither ``max_tokens`` nor ``max_total``. Raises ContextLengthExceeded when
    the prompt leaves no room for one token, InvalidRequest when the template refuses the messages.
    """
    window = context if job.max_total is None else min(job.max_total, context)
    changes = []
    if job.max_total is not None and job.max_total > context:
        changes.append(f"max_length clamped to {context}")
    asked = job.sampling.max_tokens
    known: Tokenised = {}
    if job.drop_oldest_pairs:
        answer = min(asked or default_max_tokens, window // _ANSWER_SHARE)
        messages, dropped = _drop_pairs(job, renderer, window - max(answer, 1), known)
        if dropped:
            changes.append(f"history: dropped {dropped} oldest pair{'s' if dropped > 1 else ''}")
    else:
        messages = job.messages
    ids = _render(job, messages, renderer, window, context, known)
    room = window - len(ids)
    if asked is None:
        limit = room if job.max_total is not None else min(default_max_tokens, room)
    else:
        limit = min(asked, room)
        # On the tutorial's route nobody asked: the route put its own default there.
        if asked > room and not (job.drop_oldest_pairs and job.max_total is None):
            changes.append(f"max_tokens clamped to {room}")
    return Prompt(ids, limit, tuple(changes))


def _render(
    job: Job,
    messages: Sequence[Message],
    renderer: PromptRenderer,
    window: int,
    context: int,
    known: Tokenised,
) -> list[int]:
    """Return the ids, which leave room for one token in ``window``."""
    try:
        ids = renderer.render_within(
            messages,
            window + _COUNTED_BEYOND,
            continue_final=job.continue_final_message,
            known=known,
        )
    except TooLong as exc:
        raise _too_long(f"at least {exc.at_least}", window, context) from None
    if len(ids) >= window:
        raise _too_long(str(len(ids)), window, context)
    return ids


def _too_long(tokens: str, window: int, context: int) -> ContextLengthExceeded:
    limit = f"This model's maximum context length is {context} tokens"
    if window < context:
        limit = f"This request's max_length is {window} tokens for prompt and answer together"
    return ContextLengthExceeded(
        f"{limit}. However, your messages resulted in {tokens} tokens, and the answer needs at"
        " least one more. Please reduce the length of the messages.",
        param="messages",
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
            renderer.render_within(
                without(pairs), goal, continue_final=job.continue_final_message, known=known
            )
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
