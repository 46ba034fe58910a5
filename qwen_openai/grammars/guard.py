"""Whether an answer keeps to its rules, told while it comes. The last word, whatever an engine did.

Takes text and knows no engine: llguidance reads the bytes, with a vocabulary of single ones. Making
a guard compiles its rules, which is done off the event loop; feeding it takes about 2 us a byte.
"""

from typing import TYPE_CHECKING

from qwen_openai.errors import EngineFailed

if TYPE_CHECKING:
    from llguidance import LLMatcher


class Guard:
    """Feed an answer's text, thoughts left out, in any pieces."""

    def __init__(self, rules: str) -> None:
        """`rules` are those of `build`, with the root `answer`. Raises EngineFailed where they do
        not compile, which rules that `check` passed always do."""
        # Here and not at the top: a gateway that only hands requests on never needs the compiler.
        from qwen_openai.grammars import compiler

        self._begin(compiler.matcher(rules))

    @classmethod
    def of_whole(cls, grammar: str) -> "Guard":
        """Return a guard for a complete grammar, as `build.whole` makes it: its thoughts are fed
        too. Raises EngineFailed."""
        from qwen_openai.grammars import compiler

        made = object.__new__(cls)
        made._begin(compiler.whole_matcher(grammar))
        return made

    def _begin(self, matcher: "LLMatcher") -> None:
        if matcher.is_error():
            raise EngineFailed(
                "The rules that the answer must match could not be made ready. Try again, or ask "
                "for less."
            )
        self._start = matcher
        self._matcher = matcher.deep_copy()
        self._left = False

    def fresh(self) -> "Guard":
        """Return one more guard for the same rules, before any text, at almost no cost."""
        twin = object.__new__(Guard)
        twin._start, twin._matcher, twin._left = self._start, self._start.deep_copy(), False
        return twin

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
