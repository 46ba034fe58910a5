"""The parser chain of one choice: an engine's raw events in, events as the client sees them out.

Sans I/O; one chain a choice. It ends the choice at a stop string and lets no part of one out, keeps
the count of tokens exact at every moment, and makes all text encodable as UTF-8.
"""

from qwen_openai.core import Event, Finish, Job, Text
from qwen_openai.parsing.stops import StopStrings


class Chain:
    """Feed events in order. A Finish in the result ends the choice: feed nothing after it."""

    __slots__ = ("_stops", "_tokens")

    def __init__(self, job: Job) -> None:
        self._stops = StopStrings(job.sampling.stop) if job.sampling.stop else None
        self._tokens = 0

    def feed(self, event: Event) -> list[Event]:
        """Return what the event becomes.

        Text that is held back leaves its tokens behind as an empty Text, so that the tokens seen
        so far are right whenever a stream is cut; the text itself comes later with no tokens of
        its own. At a stop string the Finish counts all tokens fed, those of the string included.
        """
        if isinstance(event, Text):
            return self._text(event)
        if isinstance(event, Finish) and self._stops is not None:
            held = self._stops.flush()
            return [Text(event.index, held, 0), event] if held else [event]
        return [event]

    def _text(self, event: Text) -> list[Event]:
        text = _encodable(event.text)
        if self._stops is None:
            return [event if text is event.text else Text(event.index, text, event.tokens)]
        self._tokens += event.tokens
        safe = self._stops.feed(text)
        if not self._stops.matched:
            return [event if safe is event.text else Text(event.index, safe, event.tokens)]
        finish = Finish(event.index, "stop", self._tokens)
        return [Text(event.index, safe, event.tokens), finish] if safe else [finish]


def _encodable(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can hold and no JSON client can read."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
