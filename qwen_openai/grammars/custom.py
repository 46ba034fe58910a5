"""A caller's own grammar, Lark or GBNF, as rules that fit into ours.

Pure text, no compiling. A grammar with the root `start` is Lark as llguidance reads it; one with
`root ::=` is llama.cpp's GBNF, which llguidance's own converter turns into Lark.
"""

import re

from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from qwen_openai.errors import InvalidRequest
from qwen_openai.grammars import lark

MAX_BYTES = 256 * 1024
PARAM = "structured_outputs.grammar"

_GBNF = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)


def rules(text: str) -> str:
    """Return a caller's grammar as rules whose root is `answer`; names in it cannot clash with
    others. Raises InvalidRequest where it is no grammar of either kind."""
    if len(text.encode()) > MAX_BYTES:
        raise _invalid(f"it is longer than {MAX_BYTES} bytes")
    if _GBNF.search(text):
        text = _converted(text)
    if "start" not in text:
        raise _invalid("it has neither a rule 'start' (Lark) nor a rule 'root ::=' (GBNF)")
    if not lark.is_balanced(text):
        raise _invalid("its braces do not match")
    return f"answer: {lark.nested(text)}"


def _converted(gbnf: str) -> str:
    try:
        return any_to_lark(gbnf)
    except GbnfToLarkError as error:
        raise _invalid(str(error)) from None
    except (IndexError, RecursionError, ValueError):
        # What the converter does with a text that ends too early or is nested too deep.
        raise _invalid("it is no GBNF") from None


def _invalid(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid grammar: {why}. Write Lark as llguidance reads it, or GBNF.",
        param=PARAM,
        code="invalid_grammar",
    )
