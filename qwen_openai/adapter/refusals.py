"""Parameters that one engine cannot honour, though others can. Pure.

An engine names them (`engines.base.EngineInfo.refuses`); here is what a request asks for.
"""

from collections.abc import Mapping
from types import MappingProxyType

from qwen_openai.core import Job
from qwen_openai.errors import UnsupportedParameter
from qwen_openai.protocol.wire import Wire

# Values that ask for nothing, where that is not plain from the value: null, false, 0 and whatever
# is empty never do.
_NEUTRAL: Mapping[str, object] = MappingProxyType(
    {"n": 1, "top_p": 1, "top_k": -1, "repetition_penalty": 1, "parallel_tool_calls": True}
)
# Asked for where they come to a grammar, and judged by that.
_ENFORCED = frozenset(
    ("tools", "tool_choice", "functions", "function_call", "response_format", "structured_outputs")
)
# Zero or false, and still something to ask for.
_NEVER_NOTHING = frozenset(("seed", "temperature", "parallel_tool_calls"))


def refuse(request: Wire, job: Job, refuses: frozenset[str]) -> None:
    """Raise UnsupportedParameter for the first of `refuses`, by name, that a request asks for."""
    for name in sorted(refuses):
        if _asks(request, job, name):
            raise UnsupportedParameter(
                f"The parameter {name!r} cannot be honoured by the engine that runs this model; "
                "leave it out, or serve the model with another engine.",
                param=name,
            )


def _asks(request: Wire, job: Job, name: str) -> bool:
    if name in _ENFORCED:
        return job.grammar is not None and job.grammar.param == name
    value: object = getattr(request, name, None)
    if value is None or value == _NEUTRAL.get(name):
        return False
    return bool(value) or name in _NEVER_NOTHING
