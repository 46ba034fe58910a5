"""Any object with `chat` and `chat_stream` of the original's shape, driven as the engine needs it.

Meant for a checkpoint's own remote-code model, which a library user has loaded (transformers 4.35
to 4.40). Its known defects are steered around: it never gets a list of ours to keep, `max_length`,
stop words, integers for floats, or text that is not NFC. Imports neither torch nor transformers.
"""

import unicodedata
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Protocol

from qwen_openai.adapter.history import Dialogue, to_history
from qwen_openai.core import Event, Finish, FinishReason, Job, Sampling, Started, Text
from qwen_openai.engines.qwen_chat.foreign_text import (
    Pieces,
    PromptCounter,
    Tally,
    Tokenizer,
    first_tokens,
    token_bytes,
    turn_marks,
)
from qwen_openai.engines.qwen_chat.worker import Answerer, Stopped
from qwen_openai.engines.torch_model.jobs import Tokens
from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.prompting.prepare import Prompt, prepare, prompt_ids

# What the original's generation does not know, or does not tell.
REFUSES = frozenset(
    (
        "continue_final_message",
        "frequency_penalty",
        "function_call",
        "functions",
        "ignore_eos",
        "logit_bias",
        "logprobs",
        "min_p",
        "min_tokens",
        "presence_penalty",
        "response_format",
        "seed",
        "stop_token_ids",
        "structured_outputs",
        "tool_choice",
        "tools",
        "top_logprobs",
    )
)


class ChatModel(Protocol):
    """The shape: ``chat(tokenizer, query, history, system=..., **generation) -> (answer, history)``
    and ``chat_stream(the same)``, which yields the growing answer."""

    @property
    def chat(self) -> Callable[..., tuple[str, object]]: ...

    @property
    def chat_stream(self) -> Callable[..., Iterator[str]]: ...


def answerer(
    model: ChatModel, tokenizer: Tokenizer, *, context: int, default_max_tokens: int
) -> Answerer:
    """Return what runs jobs on ``model``: `chat_stream` where somebody watches, else `chat`.

    Raises, in the answer, InvalidRequest for what the shape cannot express: parameters it has not,
    and an answer that continues a message."""
    window = window_of(model, context)

    def answer(job: Job, stopped: Stopped) -> Generator[Event, None, None]:
        _refuse_unsupported(job)
        dialogue = _dialogue(job)
        counter = PromptCounter(tokenizer)
        whole = replace(job, messages=dialogue.messages(), continue_final_message=False)
        prompt = prepare(whole, counter, context=window, default_max_tokens=default_max_tokens)
        yield Started(job.choice, len(prompt.ids), changes=dialogue.changes + prompt.changes)
        call = _Call(tokenizer, to_history(counter.rendered), job.sampling)
        if job.watched:
            yield from _stream(model, call, prompt, job.choice)
        else:
            yield from _whole(model, call, prompt, job.choice, stopped)

    return answer


def tokens_of(tokenizer: Tokenizer) -> Tokens:
    """Return what tells of tokens, as far as ``tokenizer`` does."""

    def encode(job: Job) -> list[int]:
        if job.prompt is not None:
            _refuse_unsupported(job)
        whole = replace(job, messages=_dialogue(job).messages(), continue_final_message=False)
        return prompt_ids(whole, PromptCounter(tokenizer, turn_marks(tokenizer)))

    return Tokens(encode, lambda ids: token_bytes(tokenizer, ids))


def window_of(model: ChatModel, context: int) -> int:
    """The tokens that a conversation may have: ``context``, or where the model itself would begin
    to forget turns in silence (its `generation_config.max_window_size`), if that is less."""
    window = getattr(getattr(model, "generation_config", None), "max_window_size", None)
    return min(context, window) if isinstance(window, int) and window > 0 else context


def _dialogue(job: Job) -> Dialogue:
    dialogue = to_history(job.messages, tools=job.tools, continue_final=job.continue_final_message)
    if dialogue.prefix is None:
        return dialogue
    if job.continue_final_message:
        raise UnsupportedParameter(
            "This model object cannot continue a message. Leave continue_final_message out.",
            param="continue_final_message",
        )
    raise InvalidRequest(
        "This model object cannot go on after a tool's result. Send the result in a user message.",
        param="messages",
    )


def _refuse_unsupported(job: Job) -> None:
    """What no adapter has refused by `REFUSES`: other doors lead here too."""
    sampling, plain = job.sampling, Sampling()
    given = {
        name: getattr(sampling, name) != getattr(plain, name)
        for name in sorted(REFUSES)
        if hasattr(plain, name)
    }
    given["prompt"] = job.prompt is not None
    if job.grammar is not None:
        given[job.grammar.param] = True
    for name, is_given in given.items():
        if is_given:
            raise UnsupportedParameter(
                f"This model object does not support {name}. Leave it out.", param=name
            )


class _Call:
    """The arguments of one call; every list in them is made anew for it."""

    def __init__(self, tokenizer: Tokenizer, dialogue: Dialogue, sampling: Sampling) -> None:
        self.tokenizer = tokenizer
        self._dialogue = dialogue
        self._sampling = sampling

    def positional(self) -> tuple[Tokenizer, str, list[tuple[str, str]]]:
        history = [(_nfc(query), _nfc(answer)) for query, answer in self._dialogue.history]
        return self.tokenizer, _nfc(self._dialogue.query), history

    def named(self, max_new_tokens: int) -> dict[str, object]:
        """Greedy is one candidate: `chat_stream` samples even when told `do_sample=False`."""
        sampling = self._sampling
        greedy = sampling.is_greedy
        named: dict[str, object] = {
            "stop_words_ids": [],
            "max_new_tokens": max_new_tokens,
            "temperature": 1.0 if greedy else float(sampling.temperature),
            "top_p": float(sampling.top_p),
            "top_k": 1 if greedy else sampling.top_k,
            "repetition_penalty": float(sampling.repetition_penalty),
        }
        if self._dialogue.system is not None:
            named["system"] = _nfc(self._dialogue.system)
        return named


def _nfc(text: str) -> str:
    """The original cuts its answer by the prompt's length before its tokenizer normalised it."""
    return unicodedata.normalize("NFC", text)


def _stream(
    model: ChatModel, call: _Call, prompt: Prompt, index: int
) -> Generator[Event, None, None]:
    limit = prompt.max_tokens
    pieces, tally = Pieces(), Tally(call.tokenizer, limit)
    stream = model.chat_stream(*call.positional(), **call.named(limit))
    steps, piece = 0, ""
    try:
        for text in stream:
            steps += 1
            piece = pieces.feed(text)
            yield Text(index, piece, tally.add(piece))
            if steps > limit:
                break
    finally:
        close = getattr(stream, "close", None)
        if callable(close):
            close()
    # One value a token: the last one of an answer that ended by itself is its stop token's.
    cut = tally.total >= limit or (steps >= limit and piece != "")
    yield Finish(index, "length" if cut else "stop", tally.total)


class _StopWhenLeft:
    """A criterion as transformers' generate takes it in a list: true ends the generation."""

    def __init__(self, stopped: Stopped) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: object, scores: object, **_: object) -> bool:
        return self._stopped()


def _whole(
    model: ChatModel, call: _Call, prompt: Prompt, index: int, stopped: Stopped
) -> Generator[Event, None, None]:
    """`chat` loses the last token of an answer that is cut, so it is asked for one more; the token
    that is lost then is the one too many, which needs no place in the context."""
    limit = prompt.max_tokens
    named = call.named(limit + 1)
    named["stopping_criteria"] = [_StopWhenLeft(stopped)]
    reply, _ = model.chat(*call.positional(), **named)
    tally = Tally(call.tokenizer, limit)
    piece = Pieces().feed(first_tokens(call.tokenizer, reply, limit))
    yield Text(index, piece, tally.add(piece))
    reason: FinishReason = "length" if tally.total >= limit else "stop"
    yield Finish(index, reason, tally.total)
