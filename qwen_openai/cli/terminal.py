"""The terminal of `chat`: reads an input of one or more lines, writes text that cannot steer it.

Knows nothing of conversations but which inputs are unfinished.
"""

import re
import sys
from collections.abc import Sequence

import typer
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from qwen_openai.cli.conversation import is_open_block

# C0 and C1 controls but tab and newline: an answer could otherwise move the cursor, rename the
# window or write to the clipboard.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PROMPT = ">>> "
_CONTINUED = "... "


def harmless(text: str) -> str:
    """Return ``text`` without control characters."""
    return _CONTROLS.sub("", text)


class Terminal:
    """Standard input and output of an interactive chat."""

    def __init__(self, commands: Sequence[str]) -> None:
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            key_bindings=_keys(),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            prompt_continuation=_CONTINUED,
        )

    def ask(self) -> str:
        """Return what the user typed. Raises KeyboardInterrupt (Ctrl-C), EOFError (Ctrl-D)."""
        return self._session.prompt(_PROMPT)

    def piece(self, text: str) -> None:
        """Show a piece of an answer at once."""
        sys.stdout.write(harmless(text))
        sys.stdout.flush()

    def tell(self, text: str) -> None:
        """Show a line of our own."""
        typer.secho(harmless(text), dim=True)


def _keys() -> KeyBindings:
    """Enter sends, but inside a block of triple quotes; Alt-Enter (Esc, Enter) starts a line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open_block(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
