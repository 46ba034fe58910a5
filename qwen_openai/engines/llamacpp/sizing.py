"""Context, slots and threads from the machine's memory and cores and what the user asked for.

Pure; `engines.machine` looks at the machine. The figures behind the rules are in docs/engines.md.
"""

from dataclasses import dataclass

from qwen_openai.engines.machine import Machine
from qwen_openai.errors import StartupError
from qwen_openai.models.describe import Description

_MAX_CONTEXT = 8_192
_GOOD_CONTEXT = 4_096
_MIN_CONTEXT = 512
_MANY_CORES = 8

# Beside weights and cache: the interpreter, llama.cpp's buffers, and repacked weights (measured
# 126 MB over a file of 491 MB).
_FIXED_BYTES = 150 * 2**20
_WEIGHTS_FACTOR = 1.05

# Unasked, the cache takes no more than this share of the memory that the weights leave free.
_CACHE_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Sizing:
    """``context`` is tokens in one slot; ``memory`` estimates the bytes of the whole engine."""

    context: int
    slots: int
    threads: int
    memory: int


def choose(
    description: Description,
    machine: Machine,
    *,
    context: int | None = None,
    slots: int | None = None,
    threads: int | None = None,
) -> Sizing:
    """Fill in what the user left open (None) and check what he did not.

    Unasked: 4 slots (8 from 8 cores on) of 8,192 tokens, or what the model was trained for; while
    their cache passes a quarter of the memory left by the weights, first the context is halved down
    to 4,096, then the slots down to 1, then the context down to 512.

    Raises StartupError when the model does not fit, when given values do not fit, and when more
    context is asked for than the model was trained for.
    """
    if context is not None and context > description.context_length:
        raise StartupError(
            f"{description.name} was trained for {description.context_length:,} tokens of context; "
            f"{context:,} were asked for.",
            fix=f"Give --context {description.context_length} or less.",
        )
    base = round(description.weight_bytes * _WEIGHTS_FACTOR) + _FIXED_BYTES
    chosen_context, chosen_slots = _shrink(
        description, int((machine.memory - base) * _CACHE_SHARE), machine.cores, context, slots
    )
    memory = base + chosen_context * chosen_slots * description.kv_bytes_per_token
    if memory > machine.memory:
        raise _too_large(description, machine, base, chosen_context, chosen_slots)
    return Sizing(chosen_context, chosen_slots, threads or machine.cores, memory)


def _shrink(
    description: Description, budget: int, cores: int, context: int | None, slots: int | None
) -> tuple[int, int]:
    """Context and slots within a budget of cache bytes, as far as they are ours to choose."""
    tokens = budget // max(description.kv_bytes_per_token, 1)
    best_context = context or min(_MAX_CONTEXT, description.context_length)
    best_slots = slots or (8 if cores >= _MANY_CORES else 4)

    def halve_context(floor: int) -> None:
        nonlocal best_context
        while context is None and best_context * best_slots > tokens and best_context > floor:
            best_context = max(best_context // 2, floor)

    halve_context(min(_GOOD_CONTEXT, best_context))
    while slots is None and best_context * best_slots > tokens and best_slots > 1:
        best_slots //= 2
    halve_context(min(_MIN_CONTEXT, best_context))
    return best_context, best_slots


def _too_large(
    description: Description, machine: Machine, base: int, context: int, slots: int
) -> StartupError:
    kv = max(description.kv_bytes_per_token, 1)
    left = (machine.memory - base) // kv
    needed = base + context * slots * kv
    has = f"{_gb(machine.memory)} are free"
    if left < _MIN_CONTEXT:
        return StartupError(
            f"{description.name} needs about {_gb(base + _MIN_CONTEXT * kv)} of memory; {has}.",
            fix="Take a smaller model, or free memory.",
        )
    fits_context, fits_slots = left // slots // 256 * 256, left // context
    fits = [
        f"--context {fits_context}" if fits_context >= _MIN_CONTEXT else "",
        f"--slots {fits_slots}" if fits_slots >= 1 else "",
    ]
    hint = " or ".join(filter(None, fits)) or f"--slots 1 --context {left // 256 * 256}"
    return StartupError(
        f"{slots} slots of {context:,} tokens need about {_gb(needed)} of memory; {has}.",
        fix=f"Try {hint}.",
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
