"""Events to the output items of a response, and what each event changes about them.

Knows the shapes of OpenAI's specification 2.3.0 (OutputItem and the events about items), nothing of
the response around them. One item is open at a time: thoughts, a message or a call; whatever does
not belong to it closes it.
"""

from typing import Literal

from qwen_openai.core import (
    Event,
    Finish,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCallArguments,
    ToolCallStart,
)
from qwen_openai.responses.wire import token_logprobs

# An event of the stream, without its number.
Change = dict[str, object]
Status = Literal["in_progress", "completed", "incomplete"]


class _Item:
    """What all items have: an id, a place, and text that grows."""

    kind = ""
    prefix = ""

    def __init__(self, id: str, index: int) -> None:
        self.id = f"{self.prefix}_{id}_{index}"
        self.index = index
        self.status: Status = "in_progress"
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._pieces)

    def body(self) -> dict[str, object]:
        """The item as it stands."""
        return {"id": self.id, "type": self.kind, "status": self.status}

    def opened(self) -> list[Change]:
        """What is said of an item that begins."""
        return [self._change("response.output_item.added", item=self.body())]

    def closed(self, status: Status) -> list[Change]:
        """What is said of an item that ends."""
        changes = self._ended()
        self.status = status
        changes.append(self._change("response.output_item.done", item=self.body()))
        return changes

    def _ended(self) -> list[Change]:
        return []

    def _change(self, type: str, **members: object) -> Change:
        return {"type": type, "output_index": self.index, **members}

    def _inner(self, type: str, **members: object) -> Change:
        """A change inside the item, which is named."""
        return self._change(f"response.{type}", item_id=self.id, **members)


class _Parted(_Item):
    """An item whose text is its only content part."""

    part_kind = ""

    def part(self) -> dict[str, object]:
        """The part as it stands."""
        return {"type": self.part_kind, "text": self.text}

    def opened(self) -> list[Change]:
        added = super().opened()
        return [*added, self._inner("content_part.added", content_index=0, part=self.part())]

    def add(self, text: str, tokens: tuple[TokenLogprob, ...]) -> list[Change]:
        """Take a piece of text."""
        if not text:
            return []
        self._pieces.append(text)
        return [self._inner(f"{self.part_kind}.delta", content_index=0, delta=text)]

    def _ended(self) -> list[Change]:
        return [
            self._inner(f"{self.part_kind}.done", content_index=0, text=self.text),
            self._inner("content_part.done", content_index=0, part=self.part()),
        ]


class _Thoughts(_Parted):
    kind, prefix, part_kind = "reasoning", "rs", "reasoning_text"

    def body(self) -> dict[str, object]:
        content = [self.part()] if self._pieces else []
        return {**super().body(), "summary": [], "content": content}


class _Message(_Parted):
    kind, prefix, part_kind = "message", "msg", "output_text"

    def __init__(self, id: str, index: int) -> None:
        super().__init__(id, index)
        self._tokens: list[TokenLogprob] = []
        self._unsent: list[TokenLogprob] = []

    def part(self) -> dict[str, object]:
        return {**super().part(), "annotations": [], "logprobs": token_logprobs(self._tokens)}

    def body(self) -> dict[str, object]:
        content = [] if self.status == "in_progress" else [self.part()]
        return {**super().body(), "role": "assistant", "content": content}

    def add(self, text: str, tokens: tuple[TokenLogprob, ...]) -> list[Change]:
        self._tokens += tokens
        self._unsent += tokens
        changes = super().add(text, tokens)
        for change in changes:
            change["logprobs"] = token_logprobs(self._unsent)
            self._unsent.clear()
        return changes

    def _ended(self) -> list[Change]:
        done, *rest = super()._ended()
        return [{**done, "logprobs": token_logprobs(self._tokens)}, *rest]


class _Call(_Item):
    kind, prefix = "function_call", "fc"

    def __init__(self, id: str, index: int, start: ToolCallStart) -> None:
        super().__init__(id, index)
        self._start = start

    def body(self) -> dict[str, object]:
        named = {"call_id": self._start.id, "name": self._start.name, "arguments": self.text}
        return {**super().body(), **named}

    def add(self, text: str) -> list[Change]:
        """Take a piece of the arguments."""
        if not text:
            return []
        self._pieces.append(text)
        return [self._inner("function_call_arguments.delta", delta=text)]

    def _ended(self) -> list[Change]:
        name, arguments = self._start.name, self.text
        return [self._inner("function_call_arguments.done", name=name, arguments=arguments)]


class Output:
    """The items of one answer, in the order they began. ``id`` makes theirs."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._items: list[_Item] = []
        self._open: _Item | None = None

    def body(self) -> list[dict[str, object]]:
        """All items as they stand."""
        return [item.body() for item in self._items]

    def add(self, event: Event) -> list[Change]:
        """Take an event of the only choice; return what it changes."""
        if isinstance(event, Reasoning):
            return self._add_text(event, _Thoughts)
        if isinstance(event, Text):
            return self._add_text(event, _Message)
        if isinstance(event, ToolCallStart):
            return self._begin(_Call(self._id, len(self._items), event))
        if isinstance(event, ToolCallArguments):
            return self._open.add(event.text) if isinstance(self._open, _Call) else []
        if isinstance(event, Finish):
            return self._finish("incomplete" if event.reason == "length" else "completed")
        return []

    def abandon(self) -> None:
        """The answer broke off: what is open will never be complete."""
        if self._open is not None:
            self._open.status = "incomplete"
            self._open = None

    def _add_text(self, event: Text | Reasoning, kind: type[_Parted]) -> list[Change]:
        changes: list[Change] = []
        if not isinstance(self._open, kind):
            if not event.text:  # counts the tokens of something else
                return changes
            changes += self._begin(kind(self._id, len(self._items)))
        assert isinstance(self._open, kind)  # noqa: S101  # tells the type checker
        return changes + self._open.add(event.text, event.logprobs)

    def _begin(self, item: _Item) -> list[Change]:
        changes = self._close("completed")
        self._items.append(item)
        self._open = item
        return changes + item.opened()

    def _close(self, status: Status) -> list[Change]:
        if self._open is None:
            return []
        changes = self._open.closed(status)
        self._open = None
        return changes

    def _finish(self, status: Status) -> list[Change]:
        changes: list[Change] = []
        if not self._items:  # clients look for an item
            changes = self._begin(_Message(self._id, 0))
        return changes + self._close(status)
