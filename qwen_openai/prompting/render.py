"""Messages to token ids: the model's own template, every caller's text inert.

The engines' one door to prompts, with `prepare` in front for limits. Knows no HTTP and no engine.
Blocking: call it off the event loop; several threads may use one Renderer at once.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from qwen_openai.core import Message, Thinking, ToolSyntax
from qwen_openai.errors import InvalidRequest, StartupError
from qwen_openai.prompting.bpe import Bpe, TooLong
from qwen_openai.prompting.inert import END, Inert
from qwen_openai.prompting.renderer import PLAIN, Around, OverBpe, Rendered, Tokenised
from qwen_openai.prompting.template import ChatTemplate

_OPEN, _CLOSE = "<think>", "</think>"
_THINK_TAG = re.compile(f"({_OPEN}|{_CLOSE})")
# No template repeats these letters by itself, and none of them touches a tag in what it writes.
_PROBE = f"{_OPEN}kxq{_CLOSE}vjq{_CLOSE}zwq"
_TOUCHING = re.compile(r"<think>kxq|(?:kxq|vjq)</think>|</think>(?:vjq|zwq)")


class Renderer(OverBpe):
    """Renders and tokenises prompts of one model; a `PromptRenderer`."""

    def __init__(self, bpe: Bpe, template: ChatTemplate) -> None:
        super().__init__(bpe)
        self._template = template
        self._inert = Inert(tuple(bpe.control), template.constants)
        self._splits_thoughts = self._probe()
        self.tools: ToolSyntax | None = None
        self.thinking: Thinking = "never"

    @classmethod
    def load(cls, tokenizer_file: Path, template: str) -> "Renderer":
        """Load the `tokenizer.json` and compile the chat template.

        Raises StartupError when either cannot be used.
        """
        return cls(Bpe(tokenizer_file), ChatTemplate(template))

    def compose(
        self,
        messages: Sequence[Message],
        around: Around = PLAIN,
        *,
        continue_final: bool = False,
        limit: int | None = None,
        known: Tokenised | None = None,
    ) -> Rendered:
        """See `PromptRenderer.compose`. Raises InvalidRequest when the template refuses."""
        rendered = self._render(messages, continue_final)
        return Rendered(self._encode(rendered, limit, {} if known is None else known))

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

    def _encode(self, rendered: str, limit: int | None, known: Tokenised) -> list[int]:
        ids: list[int] = []
        for text, token in self._inert.split(rendered):
            if text not in known:
                try:
                    left = None if limit is None else limit - len(ids)
                    known[text] = self._bpe.encode(text, left)
                except TooLong as exc:
                    raise TooLong(len(ids) + exc.at_least) from None
            ids += known[text]
            if token is not None:
                ids.append(self._bpe.control[token])
            if limit is not None and len(ids) > limit:
                raise TooLong(len(ids))
        return ids

    def _render(self, messages: Sequence[Message], continue_final: bool) -> str:
        turns = [{"role": message.role, "content": self._cover(message)} for message in messages]
        if not continue_final:
            return self._template.render(turns, generation_prompt=True)
        if not messages or messages[-1].role != "assistant":
            raise InvalidRequest(
                "The last message must be the assistant's for the answer to continue it.",
                param="messages",
            )
        turns[-1]["content"] += END
        rendered, *rest = self._template.render(turns, generation_prompt=False).split(END)
        if len(rest) != 1:
            raise InvalidRequest(
                "This model's chat template does not let an answer continue the last message.",
                param="messages",
            )
        return rendered

    def _cover(self, message: Message) -> str:
        """Make a message's text inert, but for thoughts that the template itself takes out."""
        text = message.content
        if message.role != "assistant" or not self._splits_thoughts or _CLOSE not in text:
            return self._inert.cover(text)
        thoughts, _, answer = text.rpartition(_CLOSE)
        parts = _THINK_TAG.split(thoughts)
        covered = [part if n % 2 else self._inert.cover(part) for n, part in enumerate(parts)]
        return "".join(covered) + _CLOSE + self._inert.cover(answer)

    def _probe(self) -> bool:
        """Try the template: it must render, and: does it split thoughts off by their tags?

        Only then may an assistant's text keep its think tags: the template takes them out and
        writes its own. A template that lets one through leaves it touching the probe's letters.
        """
        question = {"role": "user", "content": "q"}
        answer = {"role": "assistant", "content": _PROBE}
        try:
            self._template.render([question], generation_prompt=True)
            rendered = self._template.render([question, answer] * 2, generation_prompt=False)
            rendered += self._template.render([question, answer, question], generation_prompt=True)
        except InvalidRequest as exc:
            raise StartupError(
                f"The model's chat template fails on the simplest conversation: {exc.message}",
                fix="Use a model file with a working chat template.",
            ) from exc
        return not _TOUCHING.search(rendered)
