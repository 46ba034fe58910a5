"""Messages to the history pairs that Qwen-1 was trained on, and back.

Pure. Every list of messages maps, or is refused with the place of the message at fault; what had to
be altered on the way is told in `Dialogue.changes`. Tools go through ReAct text (`adapter.react`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from qwen_openai.adapter import react
from qwen_openai.adapter.tools import results_of_calls
from qwen_openai.core import Message, Role, Tool
from qwen_openai.errors import InvalidRequest

# Between messages that become one.
SEPARATOR = "\n\n"

SYSTEM_MOVED = "system message moved to the front"
SYSTEMS_MERGED = "system messages merged into one leading message"
USERS_JOINED = "consecutive user messages joined"
ASSISTANTS_JOINED = "consecutive assistant messages joined"
QUERY_ADDED_FIRST = "empty user message added before the first assistant message"
QUERY_ADDED_LAST = "empty user message added at the end"
LABELS_INDENTED = "ReAct labels that begin a line of a tool result indented"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation as Qwen-1's context builder takes it.

    ``system`` None means the model's own default. ``prefix`` is what the answer goes on from: the
    last assistant message to be continued, or ReAct text left open behind results. ``changes`` are
    short ASCII phrases for the header x-qwen-openai-changed.
    """

    query: str
    history: tuple[tuple[str, str], ...] = ()
    system: str | None = None
    prefix: str | None = None
    changes: tuple[str, ...] = ()

    def messages(self) -> tuple[Message, ...]:
        """Return plain turns: system if there is one, the pairs, the query, and the prefix as a
        last assistant message, which is then to be continued."""
        turns = from_history(self.history, self.query, self.system)
        return turns if self.prefix is None else (*turns, Message("assistant", self.prefix))


def from_history(
    history: Sequence[tuple[str, str]], query: str, system: str | None = None
) -> tuple[Message, ...]:
    """Return pairs and a query as messages; `to_history` gives the same pairs back."""
    messages = [] if system is None else [Message("system", system)]
    for asked, answered in history:
        messages += (Message("user", asked), Message("assistant", answered))
    return (*messages, Message("user", query))


def to_history(
    messages: Sequence[Message], *, tools: Sequence[Tool] = (), continue_final: bool = False
) -> Dialogue:
    """Return the pairs of a conversation.

    `tools` are told to the model in the last user's turn. With `continue_final` the last message,
    a plain assistant's, is the prefix of the answer. Raises InvalidRequest with `param` at the
    message at fault ("messages[3].tool_call_id").
    """
    _check_ends(messages, continue_final)
    results = results_of_calls(messages)
    changes: dict[str, None] = {}
    system = _system(messages, changes)
    turns = _turns(messages, results, bool(tools), changes)
    prefix: str | None = None
    if continue_final:
        prefix = turns.pop()[1]
    elif _last_role(messages) == "tool":
        prefix = turns.pop()[1] + (react.OPEN_THOUGHT if tools else react.OPEN_ANSWER)
    if not turns or turns[-1][0] == "assistant":
        turns.append(("user", ""))
        changes[QUERY_ADDED_LAST] = None
    *paired, (_, query) = turns
    texts = [text for _, text in paired]
    pairs = tuple(zip(texts[::2], texts[1::2], strict=True))
    if tools:
        query = react.question(tools, query)
    return Dialogue(query, pairs, system, prefix, tuple(changes))


def _check_ends(messages: Sequence[Message], continue_final: bool) -> None:
    if not messages:
        raise InvalidRequest("messages must hold at least one message.", param="messages")
    if continue_final and messages[-1].role != "assistant":
        raise InvalidRequest(
            "continue_final_message needs a last message with the role assistant, "
            f"got {messages[-1].role}.",
            param="continue_final_message",
        )


def _system(messages: Sequence[Message], changes: dict[str, None]) -> str | None:
    places = [index for index, message in enumerate(messages) if message.role == "system"]
    if places and places != [0]:
        changes[SYSTEM_MOVED if len(places) == 1 else SYSTEMS_MERGED] = None
    return SEPARATOR.join(messages[index].content for index in places) if places else None


def _last_role(messages: Sequence[Message]) -> Role | None:
    """The role of the last message that is not a system message."""
    return next((each.role for each in reversed(messages) if each.role != "system"), None)


def _turns(
    messages: Sequence[Message],
    results: Mapping[int, tuple[str, ...]],
    with_tools: bool,
    changes: dict[str, None],
) -> list[tuple[Literal["user", "assistant"], str]]:
    """Return the texts of user and assistant in turn, a user's first."""
    turns: list[tuple[Literal["user", "assistant"], str]] = []
    numbered = [pair for pair in enumerate(messages) if pair[1].role != "system"]
    for is_user, run in groupby(numbered, key=lambda pair: pair[1].role == "user"):
        if is_user:
            contents = [message.content for _, message in run]
            turns.append(("user", _joined(contents, USERS_JOINED, changes)))
        else:
            if not turns:
                turns.append(("user", ""))
                changes[QUERY_ADDED_FIRST] = None
            turns.append(("assistant", _assistant_turn(run, results, with_tools, changes)))
    return turns


def _assistant_turn(
    run: Iterable[tuple[int, Message]],
    results: Mapping[int, tuple[str, ...]],
    with_tools: bool,
    changes: dict[str, None],
) -> str:
    """Return one turn of all that comes between two users: calls with their results, and text."""
    pieces: list[str] = []
    said: list[str] = []
    for index, message in run:
        if message.role == "assistant":
            said.append(message.content)
        if message.tool_calls:
            thought = _joined(said, ASSISTANTS_JOINED, changes)
            safe = [react.inert(result) for result in results[index]]
            if safe != list(results[index]):
                changes[LABELS_INDENTED] = None
            pieces.append(react.calls(thought, message.tool_calls, safe))
            said = []
    if said:
        text = _joined(said, ASSISTANTS_JOINED, changes)
        pieces.append(react.final_answer(text) if with_tools or pieces else text)
    return "\n".join(pieces)


def _joined(contents: Sequence[str], change: str, changes: dict[str, None]) -> str:
    if len(contents) > 1:
        changes[change] = None
    return SEPARATOR.join(contents)
