"""Compiling of rules with llguidance, with limits that are the same wherever it is done.

The text of thoughts is not part of the rules here.
"""

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from qwen_openai.grammars.build import whole


def matcher(rules: str) -> LLMatcher:
    """Return a matcher of texts' bytes for rules with the root `answer`; it may be in error."""
    limits = LLParserLimits(verbose_errors=False)
    return LLMatcher(LLTokenizer("byte"), whole(rules, "none"), log_level=0, limits=limits)
