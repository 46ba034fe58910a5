"""Whether an answer keeps to its rules, told while it comes. The last word, whatever an engine did.

Takes text and knows no engine: llguidance runs over the bytes, with a vocabulary of single ones.
Runs in linear time; without asyncio, so the first `Guard` of some rules is made off the event loop.
"""

from llguidance import LLMatcher

from qwen_openai.errors import EngineFailed
from qwen_openai.grammars import compiler


class Guard:
    """Feed an answer's text, thoughts left out, in any pieces."""

    def __init__(self, rules: str) -> None:
        """`rules` are those of `build`, with the root `answer`. Raises EngineFailed where they do
        not compile, which rules that `check` passed always do."""
        matcher = compiler.matcher(rules)
        if matcher.is_error():
            raise EngineFailed(
                "The rules that the answer must match could not be made ready. Try again, or ask "
                "for less."
            )
        self._matcher: LLMatcher = matcher
        self._left = False

    def feed(self, text: str) -> bool:
        """Take the next piece; return whether the answer so far can still become one that matches.
        Once it cannot, it never can again."""
        if not self._left:
            raw = text.encode("utf-8", "replace")
            self._left = self._matcher.try_consume_tokens(list(raw)) != len(raw)
        return not self._left

    @property
    def is_complete(self) -> bool:
        """Whether the answer may end here."""
        return not self._left and self._matcher.is_accepting()
