"""Messages to token ids: the model's own template, every caller's text inert.

The engines' one door to prompts, with `prepare` in front for limits. Knows no HTTP and no engine.
Blocking: call it off the event loop; several threads may use one Renderer at once.
"""

from collections.abc import Sequence
from pathlib import Path

from qwen_openai.core import Message, TemplateValue
from qwen_openai.errors import InvalidRequest
from qwen_openai.prompting.bpe import Bpe, TooLong
from qwen_openai.prompting.inert import END, Inert
from qwen_openai.prompting.probe import probe
from qwen_openai.prompting.renderer import PLAIN, Around, OverBpe, Rendered, Tokenised
from qwen_openai.prompting.template import ChatTemplate
from qwen_openai.prompting.turns import CLOSE, OPEN, tool_of, turn_of


class Renderer(OverBpe):
    """Renders and tokenises prompts of one model; a `PromptRenderer`."""

    def __init__(self, bpe: Bpe, template: ChatTemplate) -> None:
        """Raises StartupError when the template fails on the simplest conversation."""
        super().__init__(bpe)
        self._template = template
        self._inert = Inert(tuple(bpe.control), template.constants)
        has_thoughts = OPEN in bpe.control and CLOSE in bpe.control
        self._facts = probe(template, has_thoughts=has_thoughts)
        self.tools = self._facts.tools
        self.thinking = self._facts.thinking

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
        text = self._text_of(messages, around, continue_final)
        return self._encode(text, limit, {} if known is None else known)

    def _encode(self, rendered: str, limit: int | None, known: Tokenised) -> Rendered:
        ids: list[int] = []
        last = None
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
                last = token
            if limit is not None and len(ids) > limit:
                raise TooLong(len(ids))
        # The template's own tag: one in a caller's text is no token.
        return Rendered(ids, in_thought=last == OPEN)

    def _text_of(self, messages: Sequence[Message], around: Around, continue_final: bool) -> str:
        turns = [self._turn(message) for message in messages]
        tools = [tool_of(tool, self._inert) for tool in around.tools]
        options = self._options(around)
        if not continue_final:
            return self._template.render(
                turns, generation_prompt=True, tools=tools, options=options
            )
        _refuse_to_continue(messages)
        turns[-1]["content"] = f"{turns[-1]['content']}{END}"
        rendered, *rest = self._template.render(
            turns, generation_prompt=False, tools=tools, options=options
        ).split(END)
        if len(rest) != 1:
            raise InvalidRequest(
                "This model's chat template does not let an answer continue the last message.",
                param="messages",
            )
        return rendered

    def _turn(self, message: Message) -> dict[str, object]:
        facts = self._facts
        splits = facts.splits_before_calls if message.tool_calls else facts.splits_thoughts
        return turn_of(message, self._inert, splits_thoughts=splits)

    def _options(self, around: Around) -> dict[str, TemplateValue]:
        options: dict[str, TemplateValue] = {}
        for name, value in around.options:
            if isinstance(value, str):
                value = self._inert.cover(value, "chat_template_kwargs")
            options[name] = value
        if around.enable_thinking is not None:
            options["enable_thinking"] = around.enable_thinking
        return options


def _refuse_to_continue(messages: Sequence[Message]) -> None:
    if not messages or messages[-1].role != "assistant":
        raise InvalidRequest(
            "The last message must be the assistant's for the answer to continue it.",
            param="messages",
        )
    if messages[-1].tool_calls:
        raise InvalidRequest(
            "The last message has tool calls: there is no text behind them that an answer could"
            " continue. Leave them out, or send their results and no continue_final_message.",
            param="messages",
        )
