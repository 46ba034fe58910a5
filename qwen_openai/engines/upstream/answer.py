"""What another server answers, as events: chunks of a stream and plain bodies, by the same rules.

Sans I/O. Knows OpenAI's wire (specification 2.3.0) and what servers are known to do otherwise: ids
and numbers of calls that are missing, usage in every chunk, in the last one, or nowhere. Members
that events have no room for become `Extra`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import orjson

from qwen_openai.core import (
    Event,
    Extra,
    FinishReason,
    Job,
    Reasoning,
    Text,
    TokenLogprob,
)
from qwen_openai.engines.upstream.calls import Calls
from qwen_openai.engines.upstream.failures import Reporter
from qwen_openai.engines.upstream.logprobs import chat_logprobs, completion_logprobs
from qwen_openai.engines.upstream.members import collect, sendable
from qwen_openai.engines.upstream.usage import Usage
from qwen_openai.errors import ApiError

_BODY = frozenset(
    ("id", "object", "created", "model", "choices", "system_fingerprint", "usage", "error")
)
_CHOICE = frozenset(("index", "delta", "message", "text", "logprobs", "finish_reason"))
_DELTA = frozenset(
    ("role", "content", "reasoning_content", "reasoning", "tool_calls", "function_call")
)
# A backslash, a pair of halves, or a half alone, which is what has no group.
_SURROGATES = re.compile(
    r"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_MISSHAPEN = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
# What an answer was not finished with, but ended by.
_BROKEN = ("abort", "aborted", "error", "cancelled", "insufficient_system_resource")

Object = Mapping[str, object]


class Reader:
    """Reads one answer: `feed` every event's data of a stream in order and then `end`, or give
    `plain` the body. Raises ApiError for what the server says went wrong, and UpstreamFailed for
    what is no answer."""

    __slots__ = (
        "_body",
        "_calls",
        "_changes",
        "_choice",
        "_completes",
        "_delta",
        "_index",
        "_job",
        "_last",
        "_logprobs",
        "_reason",
        "_report",
        "_started",
        "_usage",
        "done",
    )

    def __init__(
        self, job: Job, report: Reporter, *, estimate: int, changes: tuple[str, ...] = ()
    ) -> None:
        """``estimate`` is what the prompt's tokens are reckoned at; ``changes`` what the server
        says that it altered."""
        self.done = False
        self._job = job
        self._index = job.choice
        self._report = report
        self._completes = job.prompt is not None
        self._logprobs = job.sampling.logprobs
        self._changes = changes
        self._usage = Usage(estimate)
        self._calls = Calls(job)
        self._started = False
        self._reason: FinishReason | None = None
        # Members that wait for the event they go out with; the last are the Finish's.
        self._body: dict[str, object] = {}
        self._choice: dict[str, object] = {}
        self._delta: dict[str, object] = {}
        self._last: dict[str, object] = {}

    def feed(self, data: str) -> Sequence[Event]:
        """Return the events of one event's data; nothing comes behind the end."""
        if self.done:
            return ()
        if data.startswith("[DONE]"):
            return self._ended()
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            chunk = self._nearly_json(data)
        if type(chunk) is not dict:
            raise self._report.failed("sent an event that is no chunk of an answer")
        self._check(chunk)
        try:
            return self._chunk(chunk, "delta")
        except _MISSHAPEN:
            raise self._report.failed("sent an event that is no chunk of an answer") from None

    def end(self) -> None:
        """The stream is over. Raises UpstreamFailed unless its end was told: whatever ends
        otherwise may be cut."""
        if not self.done:
            raise self._report.failed("ended its answer before it was complete")

    def plain(self, body: bytes) -> Sequence[Event]:
        """Return all events of a plain answer."""
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = self._nearly_json(body.decode("utf-8", "replace"))
        if type(answer) is not dict:
            raise self._report.failed("sent what is no answer")
        self._check(answer)
        try:
            said = answer["choices"][0]
            if type(said.get("text" if self._completes else "message")) not in (str, dict):
                raise TypeError
            events = [*self._chunk(answer, "message")]
        except _MISSHAPEN:
            raise self._report.failed("sent what is no answer") from None
        return [*events, *self._ended()]

    def _check(self, answer: dict[str, object]) -> None:
        """Raise what a server says in an answer's place: with or without a name for it."""
        error = answer.get("error")
        if error:
            raise self._failed(error)
        if "choices" not in answer and not isinstance(answer.get("usage"), dict):
            if answer.get("object") == "error" or "message" in answer or "detail" in answer:
                raise self._failed(answer)
            raise self._report.failed("sent what is no part of an answer")

    def _nearly_json(self, data: str) -> object:
        """Read what Python's json writes and nobody else reads: halves of surrogate pairs, NaN and
        Infinity."""
        whole = _SURROGATES.sub(lambda found: found[1] or "\\ufffd", data)
        try:
            value: object = json.loads(whole)
        except (ValueError, RecursionError):
            raise self._report.failed("sent what is no JSON") from None
        return value

    def _failed(self, error: object) -> ApiError:
        return self._report.of_event(error)

    def _chunk(
        self, chunk: dict[str, object], member: Literal["delta", "message"]
    ) -> Sequence[Event]:
        usage = chunk.get("usage")
        if usage is not None:
            self._usage.take(usage)
        if not chunk.keys() <= _BODY:
            collect(self._body, chunk, _BODY)
        choices = chunk.get("choices")
        if not choices:
            return ()
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(self._usage.started(self._index, self._changes))
        if type(choices) is not list:
            raise TypeError
        for choice in choices:
            if not choice.get("index"):
                self._one(choice, member, events)
        return events

    def _one(
        self, choice: Mapping[str, object], member: Literal["delta", "message"], out: list[Event]
    ) -> None:
        begin = len(out)
        reason = choice.get("finish_reason")
        if not choice.keys() <= _CHOICE:
            collect(self._choice if reason is None else self._last, choice, _CHOICE)
        if self._completes:
            self._wrote(choice, member, out)
        else:
            logprobs = choice.get("logprobs")
            entries = chat_logprobs(logprobs) if logprobs and self._logprobs is not None else ()
            delta = choice.get(member)
            if delta or entries:
                self._said(delta or {}, entries, member, out)
        if self._body or self._choice or self._delta:
            self._add_extra(out, begin)
        if reason is not None:
            self._reason = self._named(reason)

    def _wrote(self, choice: Object, member: Literal["delta", "message"], out: list[Event]) -> None:
        """Take a piece of a completion."""
        entries: tuple[TokenLogprob, ...] = ()
        if self._logprobs is not None:
            entries = completion_logprobs(choice.get("logprobs"), self._logprobs)
        text = choice.get("text")
        if text or entries:
            out.append(Text(self._index, _text(text), self._spent(text, member), entries))

    def _said(
        self,
        delta: object,
        entries: tuple[TokenLogprob, ...],
        member: Literal["delta", "message"],
        out: list[Event],
    ) -> None:
        """Take a delta, or a whole message: thoughts before the text, and calls behind it."""
        if type(delta) is not dict:
            raise TypeError
        if not delta.keys() <= _DELTA:
            collect(self._delta, delta, _DELTA)
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        text = delta.get("content")
        if type(text) is list:
            text = "".join(each.get("text") or "" for each in text)
        index, tokens = self._index, None
        if thought:
            tokens = self._spent(thought, member, last=not text)
            out.append(Reasoning(index, _text(thought), tokens, () if text else entries))
        if text or (entries and not thought):
            tokens = self._spent(text, member) if tokens is None or member == "message" else 0
            out.append(Text(index, _text(text), tokens, entries))
        calls = delta.get("tool_calls")
        called = delta.get("function_call")
        if calls is None and called is not None:
            calls = [{"index": 0, "function": called}]
        if calls:
            if type(calls) is not list:
                raise TypeError
            made = self._calls.add(calls, whole=member == "message")
            if tokens is None and (spent := self._spent(made, member)):
                out.append(Text(index, "", spent))
            out += made

    def _spent(
        self, what: object, member: Literal["delta", "message"], *, last: bool = True
    ) -> int:
        """Return the tokens of what just came: as its usage says, or as far as can be reckoned."""
        if member == "delta":
            return self._usage.spent()
        return self._usage.reckoned(what, last=last)

    def _add_extra(self, out: list[Event], begin: int) -> None:
        """Let what waits go out before the chunk's first event, if there is one."""
        if len(out) > begin:
            out.insert(begin, Extra(self._index, self._body, self._choice, self._delta))
            self._body, self._choice, self._delta = {}, {}, {}

    def _named(self, reason: object) -> FinishReason:
        """Return one of the reasons that there are."""
        if reason == "stop" or reason == "length" or reason == "content_filter":
            return reason
        if reason in _BROKEN:
            raise self._report.failed(f"broke its answer off ({reason})")
        if reason not in ("tool_calls", "function_call"):
            self._last["native_finish_reason"] = sendable(reason)
        return "stop"

    def _ended(self) -> Sequence[Event]:
        """Return what is left at the end that the server told."""
        reason = self._reason
        if reason is None:
            raise self._report.failed("ended its answer without a reason")
        self.done = True
        events: list[Event] = [*self._calls.end(self._report, cut=reason == "length")]
        if self._calls.made and reason == "stop":
            reason = self._job.calls_reason
        choice = {**self._choice, **self._last}
        try:
            finish = self._usage.finish(self._index, reason)
        except TypeError:
            raise self._report.failed("told a usage that is none") from None
        if self._body or choice or self._delta or self._usage.extra:
            events.append(Extra(self._index, self._body, choice, self._delta, self._usage.extra))
        events.append(finish)
        return events


def _text(value: object) -> str:
    if value is None:
        return ""
    if type(value) is not str:
        raise TypeError
    return value
