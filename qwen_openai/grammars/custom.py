"""A caller's own grammar, Lark or GBNF, as rules that fit into ours.

Pure text, no compiling. A grammar with the root `start` is Lark as llguidance reads it; one with
`root ::=` is llama.cpp's GBNF, which llguidance's own converter turns into Lark.
"""

from qwen_openai.errors import InvalidRequest
from qwen_openai.grammars import lark

MAX_BYTES = 256 * 1024
# llguidance's converter takes quadratic time in the number of rules.
MAX_GBNF_BYTES = 32 * 1024
MAX_GBNF_RULES = 200
PARAM = "structured_outputs.grammar"


def rules(text: str) -> str:
    """Return a caller's grammar as rules whose root is `answer`; names in it cannot clash with
    others. Raises InvalidRequest where it is no grammar of either kind."""
    if len(text.encode()) > MAX_BYTES:
        raise _invalid(f"it is longer than {MAX_BYTES} bytes")
    # Here and not at the top: hardly any request brings a grammar.
    from llguidance.gbnf_to_lark import is_lark_syntax

    if not is_lark_syntax(text):
        text = _converted(text)
    if not lark.is_balanced(text):
        raise _invalid("its braces do not match")
    return f"answer: {lark.nested(text)}"


def _converted(gbnf: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    if "root" not in gbnf or "::=" not in gbnf:
        raise _invalid("it has neither a rule 'start' (Lark) nor a rule 'root ::=' (GBNF)")
    if len(gbnf.encode()) > MAX_GBNF_BYTES or gbnf.count("::=") > MAX_GBNF_RULES:
        raise _invalid(
            f"GBNF may have {MAX_GBNF_RULES} rules and {MAX_GBNF_BYTES} bytes at most; write Lark"
        )
    try:
        return gbnf_to_lark(gbnf)
    except Exception as error:  # noqa: BLE001  # the converter raises bare ones, and its parser any
        raise _invalid(str(error)[:200].rstrip(".") or "it is no GBNF") from None


def _invalid(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid grammar: {why}. Write Lark as llguidance reads it, or GBNF.",
        param=PARAM,
    )
