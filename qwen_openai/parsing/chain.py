"""The parser chain of one choice: an engine's raw events in, events as the client sees them out.

Sans I/O; one chain a choice. It splits thoughts off, ends the choice at a stop string and lets no
part of one out, holds the answer to its grammar, turns the text of calls into calls, keeps the
count of tokens exact at every moment, and makes all text encodable as UTF-8.
"""

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b
from typing import Protocol

from qwen_openai.core import (
    Event,
    Finish,
    Job,
    Reasoning,
    Started,
    Text,
    TokenLogprob,
    ToolCallArguments,
    ToolCallStart,
)
from qwen_openai.errors import EngineFailed
from qwen_openai.parsing.bare import BareCalls
from qwen_openai.parsing.calls import CallArguments, CallParser, CallStart, Piece, joined
from qwen_openai.parsing.entries import Entries
from qwen_openai.parsing.hermes import hermes_calls
from qwen_openai.parsing.react import Opening, ReactCalls
from qwen_openai.parsing.stops import StopStrings
from qwen_openai.parsing.thoughts import Thoughts
from qwen_openai.parsing.xml import xml_calls


class AnswerGuard(Protocol):
    """Follows an answer through its grammar (`grammars.guard`)."""

    def feed(self, text: str) -> bool:
        """Take the next text; False where the answer left the grammar."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer may end here."""


class Chain:
    """Feed events in order. A Finish in the result ends the choice: feed nothing after it."""

    def __init__(
        self, job: Job, guard: AnswerGuard | None = None, *, handed_on: bool = False
    ) -> None:
        """`guard` follows the job's grammar. With `handed_on` another server makes the answer, and
        cuts it at stop strings: what is looked for is what it left in the text, until it shows that
        it tells thoughts and calls apart itself."""
        self._job = job
        self._handed_on = handed_on
        self._guard = guard
        # What may prove to be the answer, if the tag that it began with is never closed.
        self._unclosed: list[str] | None = None if guard is None else []
        self._thoughts = Thoughts(inside=False) if job.thinks else None
        self._stops = None if handed_on else _stops(job)
        self._calls = None if handed_on and job.tool_syntax == "react" else _calls(job)
        # Of a text that goes out as it is, entries need not be matched with it.
        moves = not handed_on or self._thoughts is not None or self._calls is not None
        wanted = moves and job.sampling.logprobs is not None
        self._entries = Entries() if wanted else None
        machines = (guard, self._stops, self._calls, self._entries)
        self._idle = all(machine is None for machine in machines)
        self._is_over = False
        # Bytes of the engine's text, up to where the answer's entries may go out.
        self._passed = 0
        self._made = 0
        self._tokens = 0

    def feed(self, event: Event) -> list[Event]:
        """Return what the event becomes.

        Text that is held back leaves its tokens behind as an empty Text, so that the tokens seen
        so far are right whenever a stream is cut; the text itself comes later with no tokens of
        its own. Entries of log probabilities wait for the text; those of a stop string never come.
        At a stop string, and where calls end the answer, the Finish counts all tokens fed, those of
        the string included. An answer with calls that was not cut by its length is finished with
        the job's `calls_reason`.

        Raises EngineFailed where the answer breaks its grammar; nothing that breaks it came out.
        """
        if isinstance(event, Text):
            return self._text(event)
        if isinstance(event, Finish):
            return [self._finished(event)] if self._is_over else self._finish(event)
        if isinstance(event, Reasoning | ToolCallStart | ToolCallArguments):
            return self._typed(event)
        if isinstance(event, Started) and event.in_thought:
            self._thoughts, self._unclosed = Thoughts(inside=True), None
        return [event]

    def _typed(self, event: Reasoning | ToolCallStart | ToolCallArguments) -> list[Event]:
        """Take what an upstream told apart itself: from now on nothing of the kind is looked for
        in its text. Calls that were found there before keep their numbers."""
        out: list[Event] = []
        if self._is_over:
            return out
        if self._thoughts is not None:
            out, self._thoughts = self._last_thought(event.index), None
        if isinstance(event, Reasoning):
            return [*out, event]
        if self._calls is not None and not self._calls.ended:
            out += self._events(event.index, self._calls.flush(cut=False), 0, ())
            self._calls = None
            self._idle = self._entries is None
        if self._is_over or (out and isinstance(out[-1], Finish)):
            return out
        return [*out, replace(event, call=event.call + self._made) if self._made else event]

    def _last_thought(self, index: int) -> list[Event]:
        """Return what is held back of thoughts that go no further."""
        if self._thoughts is None or self._thoughts.answering:
            return []
        thought, answer = self._thoughts.flush()
        out = self._thought(index, thought, 0, 0) if self._thoughts.thinking else []
        return out + self._answer(index, answer, 0) if answer else out

    def _text(self, event: Text) -> list[Event]:
        if self._is_over:
            return []
        text = _encodable(event.text)
        if self._idle and self._thoughts is None and text is event.text:
            return [event]
        self._tokens += event.tokens
        if self._entries is not None:
            self._entries.add(text, event.logprobs)
        thoughts = self._thoughts
        if thoughts is None or thoughts.answering:
            return self._answer(event.index, text, event.tokens)
        if self._unclosed is not None:
            self._unclosed.append(text)
        out: list[Event] = []
        thought, answer = thoughts.feed(text)
        tokens = event.tokens
        if thoughts.thinking:
            spent = _share(tokens, len(answer), len(text)) if thoughts.answering else tokens
            out = self._thought(event.index, thought, spent, len(answer.encode()))
            tokens -= spent
        return out + self._answer(event.index, answer, tokens) if answer or tokens else out

    def _thought(self, index: int, text: str, tokens: int, behind: int) -> list[Event]:
        """Return a piece of thought; ``behind`` are the bytes that are answer already."""
        entries: tuple[TokenLogprob, ...] = ()
        if self._entries is not None and self._thoughts is not None:
            held = len(self._thoughts.held.encode())
            self._passed = self._entries.length - held - behind
            entries = self._entries.take(self._passed)
        if text or tokens or entries:
            return [Reasoning(index, text, tokens, entries)]
        return []

    def _answer(self, index: int, text: str, tokens: int) -> list[Event]:
        text, pieces = self._read(text)
        out = self._events(index, pieces, tokens, self._taken(text))
        matched = self._stops is not None and self._stops.matched
        if not matched and (self._calls is None or not self._calls.ended):
            return out
        # The Finish that follows counts everything: an empty Text would only say it twice.
        kept = [each for each in out if not isinstance(each, Text) or each.text or each.logprobs]
        rest: list[Piece] = [] if self._calls is None else self._calls.flush(cut=False)
        kept += self._events(index, rest, 0, ())
        if self._handed_on and not self._job.watched:
            # The whole answer has come; its end tells what it took.
            self._is_over = True
            return kept
        return [*kept, self._finished(Finish(index, "stop", self._tokens))]

    def _read(self, text: str) -> tuple[str, list[Piece]]:
        """Return what of the answer's text stop strings let through, and what it becomes.

        Within a call none is looked for: half a call, taken for a whole one, does harm."""
        stops, calls = self._stops, self._calls
        if stops is None or self._tokens < self._job.sampling.min_tokens:
            return text, self._pieces(text)
        passed = stops.feed(text)
        pieces = self._pieces(passed)
        while stops.matched:
            inside = calls is not None and calls.inside
            more = stops.go_on() if inside else stops.ending()
            passed += more
            pieces += self._pieces(more)
            if not inside:
                break
        return passed, joined(pieces)

    def _pieces(self, text: str) -> list[Piece]:
        self._check(text)
        return [text] if self._calls is None else self._calls.feed(text)

    def _finish(self, event: Finish) -> list[Event]:
        """Let out what is held back, and say how the answer ended."""
        out: list[Event] = []
        if self._thoughts is not None and not self._thoughts.answering:
            thought, answer = self._thoughts.flush()
            if self._thoughts.thinking:
                out = self._thought(event.index, thought, 0, 0)
                if event.reason == "stop" and self._is_unfinished():
                    # A format may take the tag and what follows as its own text.
                    answer = "".join(self._unclosed or ())
            if answer:
                out += self._answer(event.index, answer, 0)
                if out and isinstance(out[-1], Finish):
                    return out
        held = "" if self._stops is None else self._stops.flush()
        self._check(held)
        if event.reason == "stop" and self._is_unfinished():
            raise EngineFailed(
                "The engine ended the answer before it had the format that the request asked for. "
                "Try again, and report it if it happens often."
            )
        pieces: list[Piece] = [held]
        if self._calls is not None:
            pieces = [*self._calls.feed(held), *self._calls.flush(event.reason == "length")]
        entries = () if self._entries is None else self._entries.take_all()
        return [*out, *self._events(event.index, pieces, 0, entries), self._finished(event)]

    def _finished(self, event: Finish) -> Finish:
        if self._calls is not None and self._calls.calls and event.reason == "stop":
            return replace(event, reason=self._job.calls_reason)
        return event

    def _check(self, text: str) -> None:
        if text and self._guard is not None and not self._guard.feed(text):
            raise EngineFailed(
                "The engine left the format that the request asked for; nothing that breaks it was "
                "sent. Try again, and report it if it happens often."
            )

    def _is_unfinished(self) -> bool:
        """Whether the engine had no business to end the answer yet: not of itself, but at a token
        that the caller named, or that ends what is filled in."""
        prompt = self._job.prompt
        filled_in = prompt is not None and prompt.suffix is not None
        if self._guard is None or self._job.sampling.stop_token_ids or filled_in:
            return False
        return not self._guard.is_complete

    def _taken(self, text: str) -> tuple[TokenLogprob, ...]:
        """Return the entries of tokens that end with this text of the answer or before."""
        if self._entries is None:
            return ()
        self._passed += len(text.encode())
        return self._entries.take(self._passed)

    def _events(
        self, index: int, pieces: Iterable[Piece], tokens: int, entries: tuple[TokenLogprob, ...]
    ) -> list[Event]:
        """Return pieces as events. The first Text has the tokens and their entries; where there is
        none in front, an empty one has."""
        out: list[Event] = []
        for piece in pieces:
            if isinstance(piece, CallStart):
                call = f"{self._job.id}/{self._job.choice}/{self._made}"
                id = f"call_{blake2b(call.encode(), digest_size=12).hexdigest()}"
                out.append(ToolCallStart(index, self._made, id, piece.name))
                self._made += 1
            elif isinstance(piece, CallArguments):
                out.append(ToolCallArguments(index, self._made - 1, piece.text))
            elif piece:
                out.append(Text(index, piece, 0))
        if tokens or entries:
            first = out[0] if out else None
            if isinstance(first, Text):
                out[0] = Text(index, first.text, tokens, entries)
            else:
                out.insert(0, Text(index, "", tokens, entries))
        return out


def _share(tokens: int, answer: int, text: int) -> int:
    """Return how many of an event's tokens are thoughts, of which so much text is answer."""
    return int(tokens * max(0, text - answer) / text + 0.5) if text else tokens


def _stops(job: Job) -> StopStrings | None:
    sampling = job.sampling
    if not sampling.stop:
        return None
    return StopStrings(sampling.stop, include=sampling.include_stop)


def _calls(job: Job) -> CallParser | None:
    """Return the parser for the job's tool syntax, begun where its prompt ends."""
    parallel = job.parallel_tool_calls
    names = [tool.name for tool in job.tools]
    if job.tool_syntax == "react":
        return ReactCalls(names, parallel=parallel, opening=_opening(job))
    if job.tool_syntax is None or not names:
        return None
    if job.tool_syntax == "xml":
        tagged = xml_calls(job.tools, parallel=parallel, leading=job.calls_lead)
    else:
        tagged = hermes_calls(names, parallel=parallel, leading=job.calls_lead)
    if job.bare_calls and not job.continue_final_message:
        return BareCalls(names, tagged, parallel=parallel)
    return tagged


def _opening(job: Job) -> Opening:
    """See `adapter.history.to_history`, which leaves the turn open behind results."""
    if job.continue_final_message:
        return "text"
    if "tool" in [each.role for each in job.messages if each.role != "system"][-1:]:
        return "thought" if job.tools else "answer"
    return "reply"


def _encodable(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can hold and no JSON client can read."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
