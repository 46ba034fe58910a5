"""What makes a prompt of a job, as `prepare` sees it.

Three classes are one: `render.Renderer`, by a model's chat template; `qwen1.Qwen1Renderer`, as the
first generation builds its prompt; and what only counts the messages of a foreign model, which
inherits `MessagesOnly`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from qwen_openai.core import Job, Message, RawPrompt, TemplateValue, Thinking, Tool, ToolSyntax
from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.families import FillIn
from qwen_openai.prompting.bpe import Bpe, TooLong
from qwen_openai.prompting.inert import refuse_surrogates

Tokenised = dict[str, list[int]]  # texts and their ids
_FILL_IN = FillIn()


@dataclass(frozen=True, slots=True)
class Around:
    """What a chat template is given beside the messages: as in `core.Job`."""

    tools: tuple[Tool, ...] = ()
    enable_thinking: bool | None = None
    options: tuple[tuple[str, TemplateValue], ...] = ()

    @classmethod
    def of(cls, job: Job) -> "Around":
        return cls(job.tools, job.enable_thinking, job.template_options)


PLAIN = Around()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt's ids, and whether it ends inside a thought that the template opened."""

    ids: list[int]
    in_thought: bool = False


class PromptRenderer(Protocol):
    """Renders and tokenises prompts of one model; every caller's text in them is inert.

    Blocking; several threads may use one at once.
    """

    @property
    def tools(self) -> ToolSyntax | None:
        """How prompts tell of tools and calls; None where tools make no difference to them."""

    @property
    def thinking(self) -> Thinking:
        """Whether an answer begins with thoughts, and whether `enable_thinking` decides it."""

    @property
    def fills_in(self) -> bool:
        """Whether a raw prompt may have a suffix."""

    @property
    def fill_in_stop_ids(self) -> tuple[int, ...]:
        """The control tokens that end an answer to a raw prompt with a suffix."""

    def knows(self, number: int) -> bool:
        """Tell whether ``number`` is the id of a token."""

    def compose(
        self,
        messages: Sequence[Message],
        around: Around = ...,
        *,
        continue_final: bool = False,
        limit: int | None = None,
        known: Tokenised | None = None,
    ) -> Rendered:
        """Return the whole prompt, ending in the opening of the assistant's turn.

        With ``continue_final`` it ends inside the last message, which must be the assistant's, with
        exactly its text. With a ``limit``, raises TooLong, soon, when there are more tokens than
        that. ``known`` keeps what was tokenised, for a next call with much the same messages.
        Raises InvalidRequest when the messages cannot be rendered.
        """

    def raw(self, prompt: RawPrompt, limit: int | None = None) -> list[int]:
        """Return the ids of a prompt that is no conversation.

        Control tokens are recognised in its text, unless it has a suffix. Raises TooLong as
        `compose` does, and InvalidRequest for ids that are none, for text that is no valid Unicode,
        and for a suffix where the model fills in nothing.
        """


class MessagesOnly(ABC):
    """A PromptRenderer that knows of messages and nothing else: no tools, thoughts, raw prompts."""

    tools: ToolSyntax | None = None
    thinking: Thinking = "never"
    fills_in = False
    fill_in_stop_ids: tuple[int, ...] = ()

    @abstractmethod
    def render(self, messages: Sequence[Message], *, continue_final: bool = False) -> list[int]:
        """Return the ids of the whole prompt."""

    @abstractmethod
    def render_within(
        self,
        messages: Sequence[Message],
        limit: int,
        *,
        continue_final: bool = False,
        known: Tokenised | None = None,
    ) -> list[int]:
        """As `render`, but raises TooLong, soon, when there are more than ``limit`` tokens."""

    def knows(self, number: int) -> bool:
        return number >= 0

    def compose(
        self,
        messages: Sequence[Message],
        around: Around = PLAIN,
        *,
        continue_final: bool = False,
        limit: int | None = None,
        known: Tokenised | None = None,
    ) -> Rendered:
        if limit is None:
            return Rendered(self.render(messages, continue_final=continue_final))
        return Rendered(
            self.render_within(messages, limit, continue_final=continue_final, known=known)
        )

    def raw(self, prompt: RawPrompt, limit: int | None = None) -> list[int]:
        raise UnsupportedParameter(
            "This model takes conversations only. Send messages to /v1/chat/completions.",
            param="prompt",
        )


class OverBpe(ABC):
    """What renderers that own a vocabulary tell of it, and the prompts that need nothing else."""

    def __init__(self, bpe: Bpe, fill_in: FillIn = _FILL_IN) -> None:
        self._bpe = bpe
        around = (fill_in.prefix, fill_in.suffix, fill_in.middle)
        self._fill_in = [bpe.control[token] for token in around if token in bpe.control]
        self.fills_in = len(self._fill_in) == len(around)
        stops = [bpe.control[token] for token in fill_in.stop_tokens if token in bpe.control]
        self.fill_in_stop_ids = tuple(stops) if self.fills_in else ()

    @property
    def bpe(self) -> Bpe:
        """The vocabulary itself."""
        return self._bpe

    @abstractmethod
    def compose(
        self,
        messages: Sequence[Message],
        around: Around = PLAIN,
        *,
        continue_final: bool = False,
        limit: int | None = None,
        known: Tokenised | None = None,
    ) -> Rendered:
        """See `PromptRenderer.compose`."""

    def render(self, messages: Sequence[Message], *, continue_final: bool = False) -> list[int]:
        """Return the ids of the whole prompt: `compose` without the rest."""
        return self.compose(messages, continue_final=continue_final).ids

    def render_within(
        self,
        messages: Sequence[Message],
        limit: int,
        *,
        continue_final: bool = False,
        known: Tokenised | None = None,
    ) -> list[int]:
        """As `render`, but raises TooLong, soon, when the prompt has more than ``limit`` tokens."""
        return self.compose(messages, continue_final=continue_final, limit=limit, known=known).ids

    def token_id(self, token: str) -> int | None:
        """Return the id of a control token such as ``<|im_end|>``; None for any other text."""
        return self._bpe.control.get(token)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, control tokens spelled out; broken UTF-8 becomes U+FFFD."""
        return self._bpe.decode(ids)

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token. Raises InvalidRequest for an id that is none."""
        return [self._bpe.bytes_of(number) for number in ids]

    @property
    def vocab_size(self) -> int:
        """One more than the highest id that stands for a text."""
        return self._bpe.size

    def knows(self, number: int) -> bool:
        """Tell whether ``number`` is the id of a token."""
        return self._bpe.has(number)

    def raw(self, prompt: RawPrompt, limit: int | None = None) -> list[int]:
        """Return the ids of a prompt that is no conversation: see `PromptRenderer.raw`."""
        if prompt.suffix is None:
            ids = self._text(prompt.text, limit, control=True)
        elif not self.fills_in:
            raise InvalidRequest(
                "This model does not fill in text between a prompt and a suffix. Leave suffix out,"
                " or use a model that does, such as a Qwen2.5-Coder.",
                param="suffix",
            )
        else:
            prefix, suffix, middle = self._fill_in
            refuse_surrogates(prompt.suffix, "suffix")
            ids = [prefix, *self._text(prompt.text, limit, control=False)]
            try:
                ids += [suffix, *self._bpe.encode(prompt.suffix, limit), middle]
            except TooLong as exc:
                raise TooLong(len(ids) + exc.at_least) from None
        if limit is not None and len(ids) > limit:
            raise TooLong(len(ids))
        return ids

    def _text(self, text: str | tuple[int, ...], limit: int | None, *, control: bool) -> list[int]:
        if isinstance(text, str):
            refuse_surrogates(text, "prompt")
            return self._bpe.encode(text, limit, control=control)
        for number in text:
            if not self.knows(number):
                raise InvalidRequest(
                    f"The prompt has the token id {number}, which this model's vocabulary has not:"
                    f" its ids go from 0 to {self.vocab_size - 1}.",
                    param="prompt",
                )
        return list(text)
