"""What this process may use of the machine: memory and cores, of the container where there is one.

For every engine that sizes itself. Reads Linux's cgroup v2; elsewhere the machine's own figures.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes of memory free for us, and cores we may use."""

    memory: int
    cores: int


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
