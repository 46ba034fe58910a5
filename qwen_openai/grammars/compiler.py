"""Compiles rules with llguidance, with the same limits everywhere; run as a module, a child does.

The child (`check` starts it) may be killed at any time: a hostile grammar can cost llguidance much
time and memory, or its stack. It reads rules from standard input and writes what is wrong with them
to standard output, each behind its length in four bytes, and ends with its input. Knows no asyncio.
"""

import contextlib
import json
import os
import queue
import re
import resource
import sys
import threading
from typing import BinaryIO

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from qwen_openai.grammars.build import whole
from qwen_openai.grammars.ends import can_end
from qwen_openai.grammars.lark import OF_FUNCTION

# Less than any thread's here or in an engine: what compiles with this much does so everywhere.
STACK = 512 * 1024

_SCHEMA_LINE = re.compile(r"^\w+: %json (\{.*\})$", re.MULTILINE)
_PLACE = re.compile(r"^at (\d+)\(\d+\): ")
_REGEX_ERROR = re.compile(r"^error: (.{1,300})$", re.MULTILINE)
_LONGEST_REASON = 400
_ONE_OF = (
    "'oneOf' is supported only where no two of its alternatives can match the same value, "
    "for example because a const tells them apart; use 'anyOf'"
)


def limits() -> LLParserLimits:
    """llguidance's own limits, named so that no release changes them, and a smaller lexer."""
    return LLParserLimits(
        max_items_in_row=2_000,
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=50_000,  # one to two kB each
        max_grammar_size=500_000,
        verbose_errors=False,
    )


def matcher(rules: str) -> LLMatcher:
    """Return a matcher of texts' bytes for rules with the root `answer`; it may be in error."""
    return whole_matcher(whole(rules, "none"))


def whole_matcher(grammar: str) -> LLMatcher:
    """As `matcher`, for a grammar that is complete."""
    return LLMatcher(LLTokenizer("byte"), grammar, log_level=0, limits=limits())


def problem(rules: str) -> str:
    """Return what is wrong with rules, a clause that begins in lower case, "" for nothing."""
    made = matcher(rules)
    if made.is_error():
        return _reason(made.get_error(), whole(rules, "none"))
    if not any(made.compute_bitmask()):
        return "nothing can match it"
    for found in _SCHEMA_LINE.finditer(rules):
        with contextlib.suppress(json.JSONDecodeError):  # a line inside a caller's own grammar
            if not can_end(json.loads(found[1])):
                return "no finite document can match it: every way through its refs is a circle"
    return made.get_error() and "it is too complex"


def _reason(error: str, grammar: str) -> str:
    """Return the gist of llguidance's message, without the grammar that it quotes."""
    error = re.split(r"\n +\d+ \| ", error, maxsplit=1)[0]
    whose = ""
    if place := _PLACE.match(error):
        line = grammar.split("\n")[int(place[1]) - 2]
        if line.startswith(OF_FUNCTION):
            whose = f"function {line.removeprefix(OF_FUNCTION)}: "
        error = error[place.end() :]
    if "oneOf constraints" in error:
        return whose + _ONE_OF
    if found := _REGEX_ERROR.search(error):
        return f"{whose}a regular expression in it cannot be used: {found[1]}"
    gist = " ".join(error.replace("failed to compile JSON schema: ", "").split())
    return whose + gist[:_LONGEST_REASON].rstrip(".")


def _limit(memory: int) -> None:
    """Bound this process's address space, and let it leave no core behind."""
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(OSError, ValueError):  # not every system knows each of them
            _, hard = resource.getrlimit(kind)
            bounded = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (bounded, hard))


def _work(waiting: "queue.SimpleQueue[bytes]", out: BinaryIO) -> None:
    try:
        while True:
            write_frame(out, problem(waiting.get().decode()).encode("utf-8", "replace"))
    finally:
        # Whatever ends this thread (no memory left, a panic in llguidance) ends the process.
        os._exit(1)


def write_frame(out: BinaryIO, payload: bytes) -> None:
    """Write a payload behind its length."""
    out.write(len(payload).to_bytes(4, "big") + payload)
    out.flush()


def main() -> None:
    """Serve until standard input ends; the argument is the address space in bytes."""
    _limit(int(sys.argv[1]))
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.stack_size(STACK)
    out = sys.stdout.buffer
    threading.Thread(target=_work, args=(waiting, out), daemon=True).start()
    write_frame(out, b"ready")
    # Read here and compile there, so that the end of the parent ends a compilation too.
    while head := sys.stdin.buffer.read(4):
        waiting.put(sys.stdin.buffer.read(int.from_bytes(head, "big")))
    os._exit(0)


if __name__ == "__main__":
    main()
