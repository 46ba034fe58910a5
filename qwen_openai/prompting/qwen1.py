"""Messages to the token ids that the first Qwen generation was trained on.

Its prompt is ChatML, but pieced together from ids: every content is tokenised by itself, so no text
ever merges with the line end in front of it, as it would in a template rendered in one piece. Ids
are those of the original context builder, checked against its own output. Knows one model's
vocabulary and no limits but the one given.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen_openai.core import Message, Thinking, ToolSyntax
from qwen_openai.errors import InvalidRequest, StartupError
from qwen_openai.prompting.bpe import Bpe, TooLong
from qwen_openai.prompting.inert import refuse_surrogates
from qwen_openai.prompting.renderer import PLAIN, Around, OverBpe, Rendered, Tokenised

DEFAULT_SYSTEM = "You are a helpful assistant."

_OPEN, _CLOSE = "<|im_start|>", "<|im_end|>"
_ROLES = ("system", "user", "assistant")


class Qwen1Renderer(OverBpe):
    """Renders and tokenises prompts of a Qwen-1 model. Stateless; a `PromptRenderer`.

    Tools are text in the messages already (`adapter.history`), so none are rendered here.
    """

    tools: ToolSyntax | None = "react"
    thinking: Thinking = "never"

    def __init__(self, bpe: Bpe) -> None:
        """Raises StartupError when the vocabulary lacks the tokens that mark turns."""
        missing = [token for token in (_OPEN, _CLOSE) if token not in bpe.control]
        if missing:
            raise StartupError(
                f"The model's vocabulary has no {missing[0]}: it is not one of a Qwen chat model.",
                fix="Use the chat model's own tokenizer files.",
            )
        super().__init__(bpe)
        self._open, self._close = bpe.control[_OPEN], bpe.control[_CLOSE]
        self._line = bpe.encode("\n")
        self._roles = {role: bpe.encode(role) for role in _ROLES}

    @classmethod
    def load(cls, tokenizer_file: Path) -> "Qwen1Renderer":
        """Load the `tokenizer.json`. Raises StartupError when it cannot be used."""
        return cls(Bpe(tokenizer_file))

    def compose(
        self,
        messages: Sequence[Message],
        around: Around = PLAIN,
        *,
        continue_final: bool = False,
        limit: int | None = None,
        known: Tokenised | None = None,
    ) -> Rendered:
        """See `PromptRenderer.compose`.

        Where the first message is no system message, the default one stands in front; an empty one
        is an empty turn. Raises InvalidRequest for a text that is no valid Unicode, and for a role
        that the model does not know.
        """
        known = {} if known is None else known
        return Rendered(self._render(messages, limit, continue_final, known))

    def turn_length(self, message: Message, limit: int) -> int:
        """Return how many tokens a message's turn is, its marks included.

        Raises TooLong, soon, when its text alone is more than ``limit``.
        """
        return len(self._opening(message.role)) + len(self._content(message, limit, {})) + 1

    def _render(
        self,
        messages: Sequence[Message],
        limit: int | None,
        continue_final: bool,
        known: Tokenised,
    ) -> list[int]:
        if continue_final and (not messages or messages[-1].role != "assistant"):
            raise InvalidRequest(
                "The last message must be the assistant's for the answer to continue it.",
                param="messages",
            )
        ids: list[int] = []
        for message in _with_system(messages):
            ids += self._line if ids else ()
            ids += self._opening(message.role)
            try:
                left = None if limit is None else limit - len(ids)
                ids += self._content(message, left, known)
            except TooLong as exc:
                raise TooLong(len(ids) + exc.at_least) from None
            ids.append(self._close)
        if continue_final:
            ids.pop()
        else:
            ids += [*self._line, *self._opening("assistant")]
        if limit is not None and len(ids) > limit:
            raise TooLong(len(ids))
        return ids

    def _opening(self, role: str) -> list[int]:
        if role not in self._roles:
            raise InvalidRequest(
                f"This model knows no messages with the role {role!r}.", param="messages"
            )
        return [self._open, *self._roles[role], *self._line]

    def _content(self, message: Message, limit: int | None, known: Tokenised) -> list[int]:
        text = message.content
        if text not in known:
            refuse_surrogates(text)
            known[text] = self._bpe.encode(text, limit)
        return known[text]


def window(
    renderer: Qwen1Renderer,
    system: str | None,
    history: Sequence[tuple[str, str]],
    max_window_size: int,
) -> int:
    """Return how many of the newest pairs of ``history`` the original keeps in the prompt.

    Its rule: from the newest on, whole pairs, as long as the system turn and the pairs are together
    fewer than ``max_window_size`` tokens; the first that does not fit ends it, also if an older one
    would fit. The question and the openings are not counted. Raises InvalidRequest as `render`.
    """
    kept = 0
    try:
        opening = Message("system", DEFAULT_SYSTEM if system is None else system)
        size = renderer.turn_length(opening, max_window_size)
        for question, answer in reversed(history):
            for turn in (Message("user", question), Message("assistant", answer)):
                size += 1 + renderer.turn_length(turn, max_window_size)
            if size >= max_window_size:
                break
            kept += 1
    except TooLong:
        return kept
    return kept


def _with_system(messages: Sequence[Message]) -> Iterator[Message]:
    if not messages or messages[0].role != "system":
        yield Message("system", DEFAULT_SYSTEM)
    yield from messages
