"""Whether a text, fed in small pieces, keeps to rules from end to end."""

from qwen_openai.grammars.guard import Guard


def matches(rules: str, text: str) -> bool:
    guard = Guard(rules)
    return all(guard.feed(text[at : at + 3]) for at in range(0, len(text), 3)) and guard.is_complete
