"""What makes a prompt of messages, as `prepare` sees it.

Two classes are one: `render.Renderer`, by a model's chat template, and `qwen1.Qwen1Renderer`, as
the first generation builds its prompt.
"""

from collections.abc import Sequence
from typing import Protocol

from qwen_openai.core import Message
from qwen_openai.prompting.bpe import Bpe

Tokenised = dict[str, list[int]]  # texts and their ids


class PromptRenderer(Protocol):
    """Renders and tokenises prompts of one model; every caller's text in them is inert.

    Blocking; several threads may use one at once.
    """

    def render(self, messages: Sequence[Message], *, continue_final: bool = False) -> list[int]:
        """Return the ids of the whole prompt, ending in the opening of the assistant's turn.

        With ``continue_final`` it ends inside the last message, which must be the assistant's, with
        exactly its text. Raises InvalidRequest when the messages cannot be rendered.
        """

    def render_within(
        self,
        messages: Sequence[Message],
        limit: int,
        *,
        continue_final: bool = False,
        known: Tokenised | None = None,
    ) -> list[int]:
        """As `render`, but raises TooLong, soon, when the prompt has more than ``limit`` tokens.

        ``known`` keeps what was tokenised, for a next call with much the same messages.
        """


class OverBpe:
    """What renderers that own a vocabulary tell of it."""

    def __init__(self, bpe: Bpe) -> None:
        self._bpe = bpe

    def token_id(self, token: str) -> int | None:
        """Return the id of a control token such as ``<|im_end|>``; None for any other text."""
        return self._bpe.control.get(token)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, control tokens spelled out; broken UTF-8 becomes U+FFFD."""
        return self._bpe.decode(ids)

    @property
    def vocab_size(self) -> int:
        """One more than the highest id that stands for a text."""
        return self._bpe.size
