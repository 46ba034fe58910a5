"""Engine `llamacpp`: GGUF models through xllamacpp, in a process of its own.

`engine` keeps the contract of `base.Engine`; `requests` makes request bodies and events;
`supervisor`, `process`, `child` and `frames` run and watch the process; `sizing` chooses context,
slots and threads. The names below load lazily: the child imports this package and must stay light.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwen_openai.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions, Vocabulary
    from qwen_openai.engines.llamacpp.supervisor import Timings

__all__ = ["LlamaCppEngine", "LlamaCppOptions", "Timings", "Vocabulary"]

_HOMES = {
    "LlamaCppEngine": "engine",
    "LlamaCppOptions": "engine",
    "Timings": "supervisor",
    "Vocabulary": "engine",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
