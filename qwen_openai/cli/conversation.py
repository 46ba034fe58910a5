"""The chat without the terminal: what a line of input means, and what has been said so far.

Sans I/O: `read` returns an action, the caller carries it out and reports back with `answered` or
`unanswered`. Knows no HTTP and no prompt.
"""

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypedDict

FENCE = '"""'

HELP = f"""\
/system TEXT   set the system message; without TEXT show it, with - remove it
/clear         forget the conversation, keep the system message
/save [FILE]   write the conversation to FILE as JSON
/help          show this
/exit          leave (Ctrl-D does too)

Alt-Enter, or Esc and then Enter, starts a new line; so does Enter inside {FENCE} ... {FENCE}.
Ctrl-C stops an answer. A text that begins with / is sent with another / before it."""


class Turn(TypedDict):
    """One message, as the OpenAI API writes it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Send these messages and show the answer."""

    messages: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Tell:
    """Show a text of our own."""

    text: str


@dataclass(frozen=True, slots=True)
class Save:
    """Write ``document`` to ``name``; an empty name leaves the choice to the caller."""

    name: str
    document: str


@dataclass(frozen=True, slots=True)
class Leave:
    """End the program."""


Action = Ask | Tell | Save | Leave


def is_open_block(text: str) -> bool:
    """Whether ``text`` begins a block in triple quotes that it does not end."""
    stripped = text.strip()
    if not stripped.startswith(FENCE):
        return False
    return len(stripped) < 2 * len(FENCE) or not stripped.endswith(FENCE)


class Conversation:
    """The turns so far and the system message."""

    def __init__(self, system: str | None = None) -> None:
        self._system = system
        self._turns: list[Turn] = []
        self._commands: dict[str, Callable[[str], Action]] = {
            "system": self._set_system,
            "clear": self._clear,
            "save": self._save,
            "help": lambda _: Tell(HELP),
            "exit": lambda _: Leave(),
            "quit": lambda _: Leave(),
        }

    @property
    def command_names(self) -> tuple[str, ...]:
        """The commands with their slash, for completion."""
        return tuple(f"/{name}" for name in self._commands)

    @property
    def messages(self) -> tuple[Turn, ...]:
        """All turns, the system message first."""
        system: list[Turn] = (
            [Turn(role="system", content=self._system)] if self._system is not None else []
        )
        return (*system, *self._turns)

    def read(self, text: str) -> Action | None:
        """Take one input: a command, or a question that joins the conversation.

        None means there was nothing in it.
        """
        stripped = text.strip()
        if not stripped:
            return None
        if stripped.startswith("/") and not stripped.startswith("//"):
            return self._command(stripped[1:])
        if stripped.startswith(FENCE):
            stripped = stripped.removeprefix(FENCE).removesuffix(FENCE).strip("\n")
        elif stripped.startswith("//"):
            stripped = stripped[1:]
        return self.ask(stripped) if stripped else None

    def ask(self, text: str) -> Ask:
        """Add a question as it stands, without looking for commands."""
        self._turns.append(Turn(role="user", content=text))
        return Ask(self.messages)

    def answered(self, text: str) -> None:
        """The model said ``text``, perhaps not to its end."""
        self._turns.append(Turn(role="assistant", content=text))

    def unanswered(self) -> None:
        """Nothing came: forget the last question, so that it can be asked again."""
        self._turns.pop()

    def _command(self, line: str) -> Action:
        name, *rest = line.split(maxsplit=1) or [""]
        command = self._commands.get(name)
        if command is not None:
            return command(rest[0] if rest else "")
        near = difflib.get_close_matches(name, self._commands, n=1)
        hint = f"Did you mean /{near[0]}?" if near else "/help lists them."
        return Tell(f"There is no command /{name}. {hint} To send it as text, write //{name}.")

    def _set_system(self, text: str) -> Action:
        if text == "-":
            self._system = None
            return Tell("The system message is removed.")
        if text:
            self._system = text
            return Tell("The system message is set.")
        if self._system is None:
            return Tell("There is no system message. /system TEXT sets one.")
        return Tell(f"The system message is: {self._system}")

    def _clear(self, _: str) -> Action:
        self._turns.clear()
        return Tell("The conversation is forgotten.")

    def _save(self, name: str) -> Action:
        document = {"messages": self.messages}
        return Save(name, json.dumps(document, ensure_ascii=False, indent=2) + "\n")
