"""The support matrix of chat completions: one row a parameter, honoured, ignored or refused.

Data, used by `protocol.chat` to check a body and by docs/api.md, whose table is made from it. Rows
cover OpenAI's specification 2.3.0 and the parameters that vLLM, SGLang, llama.cpp and Qwen's own
services are known to take. A parameter without a row is unknown: ignored, and reported as ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Use = Literal["honoured", "ignored", "refused", "forbidden"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `accepts` says in words what a valid value is, after "must be"; `harmless`
    are values of a refused parameter that ask for nothing, and so are taken; `note` is for the
    documentation."""

    name: str
    use: Use
    accepts: str = ""
    note: str = ""
    harmless: tuple[object, ...] = ()

    def is_harmless(self, value: object) -> bool:
        """Whether a value of a refused parameter means the same as leaving it out."""
        return value is None or any(
            type(value) is type(noop) and value == noop for noop in self.harmless
        )


def _refused(
    *names: str, note: str = "", harmless: tuple[object, ...] = ()
) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, "refused", note=note, harmless=harmless) for name in names)


HONOURED = (
    Parameter("model", "honoured", "a string", "one of `GET /v1/models`; otherwise 404"),
    Parameter(
        "messages",
        "honoured",
        "a list of at least one message",
        "roles system, developer (as system), user, assistant, and with tools tool; "
        "content a string or text parts",
    ),
    Parameter("temperature", "honoured", "a number between 0 and 2", "0 is greedy"),
    Parameter("top_p", "honoured", "a number above 0 and at most 1"),
    Parameter(
        "top_k", "honoured", "an integer between -1 and 2147483648", "-1 and 0 mean no limit"
    ),
    Parameter("min_p", "honoured", "a number between 0 and 1"),
    Parameter("presence_penalty", "honoured", "a number between -2 and 2"),
    Parameter("frequency_penalty", "honoured", "a number between -2 and 2"),
    Parameter("repetition_penalty", "honoured", "a number between 0.01 and 2"),
    Parameter(
        "seed",
        "honoured",
        "an integer between -9223372036854775808 and 9223372036854775807",
        "the same request alone gives the same answer",
    ),
    Parameter(
        "max_tokens",
        "honoured",
        "an integer of at least 1",
        "clamped to what is left of the context, and reported",
    ),
    Parameter(
        "max_completion_tokens", "honoured", "an integer of at least 1", "wins over `max_tokens`"
    ),
    Parameter(
        "stop",
        "honoured",
        "a string or a list of at most 4 strings, each of 1 to 1024 characters",
        "the first to be complete ends the answer; none of it is sent",
    ),
    Parameter("n", "honoured", "an integer of at least 1", "at most 8 unless configured otherwise"),
    Parameter("stream", "honoured", "true or false"),
    Parameter(
        "stream_options",
        "honoured",
        "an object",
        "`include_usage`; `include_obfuscation` changes nothing; only with `stream: true`",
    ),
    Parameter(
        "continue_final_message",
        "honoured",
        "true or false",
        "true goes on with the last message, which must be the assistant's",
    ),
    Parameter(
        "add_generation_prompt",
        "honoured",
        "true or false",
        "true unless `continue_final_message`; any other pair is refused",
    ),
    Parameter(
        "tools",
        "honoured",
        "a list of 1 to 128 tools",
        "functions, for models that take tools (Qwen-7B-Chat and its kin), refused for others; "
        "`strict: true` is refused",
    ),
    Parameter(
        "tool_choice",
        "honoured",
        '"none" or "auto"',
        "for models that take tools; whatever would have to be enforced is refused",
    ),
    Parameter(
        "parallel_tool_calls",
        "honoured",
        "true or false",
        "false ends the answer after one call; without tools it is ignored",
    ),
)

IGNORED = (
    Parameter("user", "ignored", "a string of at most 512 characters without control characters"),
    Parameter(
        "metadata",
        "ignored",
        "an object of at most 16 strings, keys up to 64 characters, values up to 512",
    ),
    Parameter("store", "ignored", "true or false", "nothing is stored"),
    Parameter(
        "service_tier",
        "ignored",
        'one of "auto", "default", "flex", "scale", "priority", "fast"',
    ),
    Parameter("safety_identifier", "ignored", "a string of at most 512 characters"),
    Parameter("prompt_cache_key", "ignored", "a string of at most 512 characters"),
    Parameter("prompt_cache_retention", "ignored"),
    Parameter("prompt_cache_options", "ignored"),
)

_OLDER = "the older form of tools; use `tools`"

REFUSED = (
    *_refused("functions", note=_OLDER),
    *_refused("function_call", note=_OLDER, harmless=("none",)),
    *_refused("response_format", harmless=({"type": "text"},)),
    *_refused("logprobs", harmless=(False,)),
    *_refused("top_logprobs"),
    *_refused("logit_bias", harmless=({},)),
    *_refused("modalities", harmless=(["text"],)),
    *_refused("audio", "prediction", "web_search_options", "moderation"),
    *_refused("reasoning_effort", harmless=("none",)),
    *_refused("verbosity", harmless=("medium",)),
    # vLLM and SGLang
    *_refused("best_of", harmless=(1,)),
    *_refused("min_tokens", harmless=(0,)),
    *_refused("stop_token_ids", "bad_words", harmless=([],)),
    *_refused(
        "ignore_eos",
        "include_stop_str_in_output",
        "use_beam_search",
        "echo",
        "add_special_tokens",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "return_hidden_states",
        harmless=(False,),
    ),
    *_refused("skip_special_tokens", "spaces_between_special_tokens", harmless=(True,)),
    *_refused("length_penalty", harmless=(1, 1.0)),
    *_refused("priority", harmless=(0,)),
    *_refused(
        "allowed_token_ids",
        "ebnf",
        "guided_choice",
        "guided_decoding_backend",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "guided_whitespace_pattern",
        "kv_transfer_params",
        "logits_processors",
        "lora_path",
        "mm_processor_kwargs",
        "prompt_logprobs",
        "regex",
        "session_params",
        "stop_regex",
        "structural_tag",
        "structured_outputs",
        "truncate_prompt_tokens",
        "vllm_xargs",
    ),
    *_refused("chat_template_kwargs", harmless=({}, {"enable_thinking": False})),
    # Qwen's own services
    *_refused("enable_thinking", "enable_search", harmless=(False,)),
    *_refused("thinking_budget", "search_options", "translation_options"),
    # llama.cpp
    *_refused("grammar", "json_schema", "n_predict", "samplers", "mirostat", "typical_p"),
)

_SECURITY = "would let a caller reach past the gateway"

FORBIDDEN = tuple(
    Parameter(name, "forbidden", note=_SECURITY)
    for name in (
        "api_base",
        "api_key",
        "api_version",
        "base_url",
        "chat_template",
        "custom_logit_processor",
        "documents",
        "extra_body",
        "extra_headers",
        "extra_query",
        "headers",
        "trust_remote_code",
    )
)

PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {row.name: row for row in (*HONOURED, *IGNORED, *REFUSED, *FORBIDDEN)}
)
