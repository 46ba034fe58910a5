"""Context, slots and threads from the machine's memory and cores and what the user asked for.

`choose` is pure; `measure` looks at the machine. The figures behind the rules are in
docs/engines.md.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

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

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes of memory free for us, and cores we may use."""

    memory: int
    cores: int


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


def measure(cgroup: Path = _CGROUP) -> Machine:
    """Memory and cores of this process: the machine's, or its container's where that is less."""
    memory = psutil.virtual_memory().available
    if (limit := _read_number(cgroup / "memory.max")) is not None:
        used = max((_read_number(cgroup / "memory.current") or 0) - _page_cache(cgroup), 0)
        memory = min(memory, max(limit - used, 0))
    return Machine(memory, _cores(cgroup))


def _cores(cgroup: Path) -> int:
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    # Two threads of one core share its vector units: a second one slows decoding down.
    cores = min(allowed, psutil.cpu_count(logical=False) or allowed)
    quota = _cpu_quota(cgroup / "cpu.max")
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _read_number(path: Path) -> int | None:
    """A cgroup v2 figure; None without a limit or without the file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _page_cache(cgroup: Path) -> int:
    """Bytes of files that the kernel keeps for speed, counts as used, and gives up on demand.

    After a pull that is the whole model. cgroup v2's `memory.stat`; 0 without the file.
    """
    try:
        lines = (cgroup / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    stat = dict(line.split(maxsplit=1) for line in lines if " " in line)
    figures = (stat.get(name, "0") for name in ("inactive_file", "active_file"))
    return sum(int(figure) for figure in figures if figure.isdigit())


def _cpu_quota(path: Path) -> float | None:
    """Cores by cgroup v2's `cpu.max` ("200000 100000"); None without a limit."""
    try:
        quota, period = path.read_text().split()
    except (OSError, ValueError):
        return None
    return int(quota) / int(period) if quota.isdigit() and int(period) > 0 else None
