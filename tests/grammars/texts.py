"""Whether a text matches rules, or a complete grammar, from end to end."""

from llguidance import LLMatcher, LLTokenizer

from qwen_openai.grammars.guard import Guard


def matches(rules: str, text: str) -> bool:
    """Feed a text to a guard in small pieces."""
    guard = Guard(rules)
    return all(guard.feed(text[at : at + 3]) for at in range(0, len(text), 3)) and guard.is_complete


def is_all_of(grammar: str, text: str) -> bool:
    """Feed a text to what an engine would make of a complete grammar."""
    made = LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
    raw = text.encode()
    return made.try_consume_tokens(list(raw)) == len(raw) and made.is_accepting()
