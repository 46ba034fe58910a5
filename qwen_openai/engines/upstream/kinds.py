"""What other servers do with our parameters: a row for each kind. Data; knows no request.

Facts from the servers' own code (vLLM 0.33, SGLang 0.5.23, llama.cpp's server of 2026-10) and from
OpenAI's specification 2.3.0. A server ignores what it does not know, so whatever is in no row here
would be lost in silence: a parameter is passed on, called by another name, or refused by its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from qwen_openai.upstreams import Kind

Formats = Literal["vllm", "sglang", "llamacpp", "openai"]
Tokens = Literal["vllm", "llamacpp"]

# Of no use but to OpenAI's own services, and better not told to anybody else.
ACCOUNTING = frozenset(
    (
        *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("prompt_cache_retention", "prompt_cache_options", "verbosity", "prediction"),
    )
)
# What one job is about, which is one answer, or what is said in another way.
NEVER = frozenset(
    (
        *("model", "n", "best_of", "echo", "stream", "stream_options", "messages", "prompt"),
        *("suffix", "functions", "function_call", "enable_thinking", "chat_template_kwargs"),
        *("structured_outputs", "add_generation_prompt"),
    )
)


@dataclass(frozen=True, slots=True)
class Row:
    """What a kind does. ``refuses`` names parameters that it cannot honour (`EngineInfo.refuses`);
    ``names`` what it calls ours; ``drops`` what is not sent. ``formats`` is its way to say what an
    answer must look like, ``tokens`` that of its tokenizer's endpoints, None without any. With
    ``templates`` it takes `chat_template_kwargs`; with ``counts`` it tells usage in every chunk;
    ``no_limit`` is its word for no top_k; without ``chooses`` it takes no function by its name."""

    formats: Formats
    refuses: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)
    drops: frozenset[str] = ACCOUNTING
    tokens: Tokens | None = None
    templates: bool = True
    counts: bool = False
    no_limit: int = 0
    chooses: bool = True


_VLLM = Row("vllm", drops=ACCOUNTING | {"reasoning_effort"}, tokens="vllm", counts=True)
_SGLANG = Row(
    "sglang",
    names=MappingProxyType({"include_stop_str_in_output": "no_stop_trim"}),
    drops=ACCOUNTING | {"reasoning_effort"},
    tokens="vllm",
    no_limit=-1,
)
_LLAMACPP = Row(
    "llamacpp",
    refuses=frozenset(("min_tokens", "stop_token_ids", "include_stop_str_in_output")),
    names=MappingProxyType({"repetition_penalty": "repeat_penalty"}),
    drops=ACCOUNTING | {"reasoning_effort"},
    tokens="llamacpp",
    chooses=False,
)
_OPENAI = Row(
    "openai",
    refuses=frozenset(
        (
            *("top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids"),
            *("include_stop_str_in_output", "ignore_eos", "enable_thinking"),
            *("chat_template_kwargs", "continue_final_message"),
        )
    ),
    drops=frozenset(),
    templates=False,
)

# A server that has not said what it is gets what all of them take.
ROWS: Mapping[Kind, Row] = MappingProxyType(
    {
        "auto": _OPENAI,
        "vllm": _VLLM,
        "sglang": _SGLANG,
        "llamacpp": _LLAMACPP,
        "openai": _OPENAI,
    }
)

# What servers say in `owned_by` of their models; the last is this program, which takes what vLLM
# takes.
_OWNERS: Mapping[str, Kind] = MappingProxyType(
    {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llamacpp", "qwen": "vllm"}
)


def kind_of(owner: object) -> Kind:
    """Return what kind of server says of a model that this one owns it."""
    return _OWNERS.get(owner, "openai") if isinstance(owner, str) else "openai"


def refuses(kind: Kind) -> frozenset[str]:
    """Return the parameters that a kind cannot honour, for `EngineInfo.refuses`."""
    return ROWS[kind].refuses
