"""A caller's history of queries and answers: checked, made valid text, and cut to a window.

Knows renderers, not models.
"""

from bisect import bisect_left
from collections.abc import Sequence

from qwen_openai.adapter.history import from_history
from qwen_openai.prompting.bpe import TooLong
from qwen_openai.prompting.qwen1 import Qwen1Renderer, window
from qwen_openai.prompting.render import Renderer

Pairs = list[tuple[str, str]]


def read_pairs(history: Sequence[Sequence[str]] | None) -> Pairs:
    """Return the history as a new list of pairs. Raises TypeError and ValueError."""
    if history is None:
        return []
    if not isinstance(history, list | tuple):
        raise TypeError(f"history must be a list of pairs, not {type(history).__name__}")
    pairs: Pairs = []
    for number, turn in enumerate(history):
        name = f"history[{number}]"
        if not isinstance(turn, list | tuple):
            raise TypeError(f"{name} must be a pair of query and answer, not {turn!r}")
        if len(turn) != 2:
            raise ValueError(f"{name} must be a pair of query and answer, not {len(turn)} values")
        if not all(isinstance(text, str) for text in turn):
            raise TypeError(f"{name} must be two strings")
        pairs.append((turn[0], turn[1]))
    return pairs


def valid(text: str) -> str:
    """Return ``text`` with U+FFFD for lone surrogates, as Qwen-1's tokenizer reads it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def newest(
    renderer: Renderer | Qwen1Renderer,
    question: str,
    history: Pairs,
    system: str | None,
    max_window_size: int,
) -> int:
    """Return how many of the newest pairs the window holds."""
    if isinstance(renderer, Qwen1Renderer):
        return window(renderer, system, history, max_window_size)
    known: dict[str, list[int]] = {}

    def fits(kept: int) -> bool:
        messages = from_history(history[len(history) - kept :], question, system)
        try:
            renderer.render_within(messages, max_window_size - 1, known=known)
        except TooLong:
            return False
        return True

    # More pairs make a longer prompt: find the last number that fits by halving.
    return bisect_left(range(1, len(history) + 1), True, key=lambda kept: not fits(kept))
