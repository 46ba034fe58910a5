"""The parser chain of one choice: an engine's raw events in, events as the client sees them out.

Sans I/O; one chain a choice. It ends the choice at a stop string and lets no part of one out, turns
the text of calls into calls, keeps the count of tokens exact at every moment, and makes all text
encodable as UTF-8.
"""

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b

from qwen_openai.core import Event, Finish, Job, Text, ToolCallArguments, ToolCallStart
from qwen_openai.parsing.react import Call, Opening, ReactCalls
from qwen_openai.parsing.stops import StopStrings


class Chain:
    """Feed events in order. A Finish in the result ends the choice: feed nothing after it."""

    __slots__ = ("_calls", "_id", "_made", "_stops", "_tokens")

    def __init__(self, job: Job) -> None:
        self._stops = StopStrings(job.sampling.stop) if job.sampling.stop else None
        self._calls = _calls(job)
        self._id = f"{job.id}/{job.choice}"
        self._made = 0
        self._tokens = 0

    def feed(self, event: Event) -> list[Event]:
        """Return what the event becomes.

        Text that is held back leaves its tokens behind as an empty Text, so that the tokens seen
        so far are right whenever a stream is cut; the text itself comes later with no tokens of
        its own. At a stop string, and where calls end the answer, the Finish counts all tokens fed,
        those of the string included. An answer with calls is finished with "tool_calls", unless it
        was cut by its length.
        """
        if isinstance(event, Text):
            return self._text(event)
        if isinstance(event, Finish):
            return self._finish(event)
        return [event]

    def _text(self, event: Text) -> list[Event]:
        text = _encodable(event.text)
        if self._stops is None and self._calls is None:
            return [event if text is event.text else Text(event.index, text, event.tokens)]
        self._tokens += event.tokens
        stopped = False
        if self._stops is not None:
            text = self._stops.feed(text)
            stopped = self._stops.matched
        if self._calls is None:
            out = self._events(event.index, [text], event.tokens)
        else:
            out = self._events(event.index, self._calls.feed(text), event.tokens)
            stopped = stopped or self._calls.ended
        if not stopped:
            return out
        # The Finish that follows counts everything: an empty Text would only say it twice.
        kept = [each for each in out if not isinstance(each, Text) or each.text]
        return [*kept, *self._finish(Finish(event.index, "stop", self._tokens))]

    def _finish(self, event: Finish) -> list[Event]:
        """Let out what is held back, and say how the answer ended."""
        stops, calls = self._stops, self._calls
        held = stops.flush() if stops is not None else ""
        if calls is None:
            return [*self._events(event.index, [held], 0), event]
        out = self._events(event.index, [*calls.feed(held), *calls.flush()], 0)
        if calls.calls and event.reason == "stop":
            event = replace(event, reason="tool_calls")
        return [*out, event]

    def _events(self, index: int, pieces: Iterable[str | Call], tokens: int) -> list[Event]:
        """Return pieces as events. The first is a Text with the tokens, if there are any."""
        out: list[Event] = []
        for piece in pieces:
            if isinstance(piece, Call):
                call = f"{self._id}/{self._made}"
                id = f"call_{blake2b(call.encode(), digest_size=12).hexdigest()}"
                out.append(ToolCallStart(index, self._made, id, piece.name))
                out.append(ToolCallArguments(index, self._made, piece.arguments))
                self._made += 1
            elif piece:
                out.append(Text(index, piece, 0))
        if tokens:
            first = out[0] if out else None
            if isinstance(first, Text):
                out[0] = replace(first, tokens=tokens)
            else:
                out.insert(0, Text(index, "", tokens))
        return out


def _calls(job: Job) -> ReactCalls | None:
    """Return the machine for the job's tool syntax, begun where its prompt ends: see
    `adapter.history.to_history`, which leaves the turn open behind results."""
    if job.tool_syntax is None:
        return None
    opening: Opening = "reply"
    if job.continue_final_message:
        opening = "text"
    elif "tool" in [each.role for each in job.messages if each.role != "system"][-1:]:
        opening = "thought" if job.tools else "answer"
    names = [tool.name for tool in job.tools]
    return ReactCalls(names, parallel=job.parallel_tool_calls, opening=opening)


def _encodable(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can hold and no JSON client can read."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
