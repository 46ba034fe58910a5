"""The support matrix of chat completions: one row a parameter, honoured, ignored or refused.

Data, used by `protocol.chat` to check a body, by docs/api.md, whose table is made from it, and by
GET /v1/capabilities. Rows cover OpenAI's specification 2.3.0 and the parameters that vLLM, SGLang,
llama.cpp and Qwen's own services are known to take. A parameter without a row is unknown: ignored,
and reported as ignored.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Use = Literal["honoured", "ignored", "refused", "forbidden"]
# What a model can do, or not.
Ability = Literal["tools", "thinking", "fill_in"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `accepts` says in words what a valid value is, after "must be"; `harmless`
    are values of a refused or ignored parameter that ask for nothing, and so are taken in silence;
    `instead` is what does what a refused one is for; `note` is for the documentation. Where a model
    lacks what an honoured one `needs`, it is `otherwise` treated."""

    name: str
    use: Use
    accepts: str = ""
    note: str = ""
    harmless: tuple[object, ...] = ()
    instead: str = ""
    needs: Ability | None = None
    otherwise: Use = "refused"

    def use_by(self, abilities: Collection[Ability]) -> Use:
        """Return the use of the parameter to a model with these abilities."""
        lacking = self.needs is not None and self.needs not in abilities
        return self.otherwise if lacking else self.use

    def is_harmless(self, value: object) -> bool:
        """Whether a value of a parameter that is not honoured means the same as leaving it out."""
        return value is None or any(
            type(value) is type(noop) and value == noop for noop in self.harmless
        )


def _refused(
    *names: str, note: str = "", harmless: tuple[object, ...] = (), instead: str = ""
) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, "refused", "", note, harmless, instead) for name in names)


HONOURED = (
    Parameter("model", "honoured", "a string", "one of `GET /v1/models`; otherwise 404"),
    Parameter(
        "messages",
        "honoured",
        "a list of at least one message",
        "roles system, developer (as system), user, assistant, tool, function (the older form); "
        "content a string or text parts; an assistant's `reasoning_content` or `reasoning` too",
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
        "logit_bias",
        "honoured",
        "an object of at most 1024 token ids, in decimal digits, each with a number between -100 "
        "and 100",
        "-100 bans the token; an id that the model does not have is 400",
    ),
    Parameter(
        "seed",
        "honoured",
        "an integer between -9223372036854775808 and 9223372036854775807",
        "the same request alone, without a prompt cache, gives the same answer",
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
        "min_tokens",
        "honoured",
        "an integer of at least 0",
        "at most the answer's limit; not with an enforced format",
    ),
    Parameter(
        "stop",
        "honoured",
        "a string or a list of at most 4 strings, each of 1 to 1024 characters",
        "the first to be complete ends the answer; none of it is sent",
    ),
    Parameter(
        "stop_token_ids",
        "honoured",
        "a list of at most 128 token ids",
        "each ends the answer; its text is not sent",
    ),
    Parameter(
        "include_stop_str_in_output",
        "honoured",
        "true or false",
        "true sends the stop string that ended the answer too",
    ),
    Parameter(
        "ignore_eos",
        "honoured",
        "true or false",
        "true goes on to the answer's limit; not with an enforced format",
    ),
    Parameter("n", "honoured", "an integer of at least 1", "at most 8 unless configured otherwise"),
    Parameter("stream", "honoured", "true or false"),
    Parameter(
        "stream_options",
        "honoured",
        "an object",
        "`include_usage`; `include_obfuscation` changes nothing; only with `stream: true`",
    ),
    Parameter("logprobs", "honoured", "true or false"),
    Parameter(
        "top_logprobs",
        "honoured",
        "an integer between 0 and 20",
        "only with `logprobs: true`",
    ),
    Parameter(
        "tools",
        "honoured",
        "a list of 1 to 128 tools",
        "functions; the arguments of one with `strict: true` always match its schema",
        needs="tools",
    ),
    Parameter(
        "tool_choice",
        "honoured",
        '"none", "auto", "required", a function of tools or allowed_tools',
        "a call that is asked for is enforced",
        needs="tools",
    ),
    Parameter(
        "parallel_tool_calls",
        "honoured",
        "true or false",
        "false ends the answer after one call; without tools it is ignored",
        needs="tools",
        otherwise="ignored",
    ),
    Parameter(
        "functions",
        "honoured",
        "a list of 1 to 128 functions",
        "the older form of `tools`",
        needs="tools",
    ),
    Parameter(
        "function_call",
        "honoured",
        '"none", "auto" or an object like {"name": "..."}',
        "the older form of `tool_choice`",
        needs="tools",
    ),
    Parameter(
        "response_format",
        "honoured",
        'an object like {"type": "json_object"}',
        "`text`, `json_object`, `json_schema`; enforced, `strict` or not",
    ),
    Parameter(
        "structured_outputs",
        "honoured",
        "an object with one of json, regex, choice, grammar and json_object",
        "vLLM's; enforced; a grammar is Lark or GBNF",
    ),
    Parameter(
        "reasoning_effort",
        "honoured",
        'one of "none", "minimal", "low", "medium", "high", "xhigh", "max"',
        '"none" and "minimal" mean no thoughts',
        needs="thinking",
        otherwise="ignored",
    ),
    Parameter(
        "enable_thinking",
        "honoured",
        "true or false",
        needs="thinking",
        otherwise="ignored",
    ),
    Parameter(
        "chat_template_kwargs",
        "honoured",
        "an object",
        "`enable_thinking`, `preserve_thinking`, `reasoning_effort`; others are refused",
        needs="thinking",
        otherwise="ignored",
    ),
    Parameter(
        "continue_final_message",
        "honoured",
        "true or false",
        "true goes on with the last message, which must be the assistant's; not with an enforced "
        "format",
    ),
    Parameter(
        "add_generation_prompt",
        "honoured",
        "true or false",
        "true unless `continue_final_message`; any other pair is refused",
    ),
)

IGNORED = (
    Parameter("user", "ignored", "a string of at most 512 characters without control characters"),
    Parameter(
        "metadata",
        "ignored",
        "an object of at most 16 strings, keys up to 64 characters, values up to 512",
        harmless=({},),
    ),
    Parameter("store", "ignored", "true or false", "nothing is stored", harmless=(False,)),
    Parameter(
        "service_tier",
        "ignored",
        'one of "auto", "default", "flex", "scale", "priority", "fast"',
        harmless=("auto", "default"),
    ),
    Parameter("safety_identifier", "ignored", "a string of at most 512 characters"),
    Parameter("prompt_cache_key", "ignored", "a string of at most 512 characters"),
    Parameter("prompt_cache_retention", "ignored", 'one of "in_memory", "in-memory", "24h"'),
    Parameter("prompt_cache_options", "ignored", "an object"),
    Parameter(
        "verbosity",
        "ignored",
        'one of "low", "medium", "high"',
        "a hint that these models do not know",
        harmless=("medium",),
    ),
    Parameter("prediction", "ignored", "an object", "a hint that only makes answers faster"),
    # vLLM, SGLang and llama.cpp: for their own logs, caches and speed
    Parameter("request_id", "ignored", note="send the header `x-request-id`"),
    Parameter("rid", "ignored", note="send the header `x-request-id`"),
    Parameter("session_id", "ignored"),
    Parameter("cache_prompt", "ignored", harmless=(True,)),
    Parameter("stream_interval", "ignored", harmless=(1,)),
)

REFUSED = (
    *_refused("modalities", harmless=(["text"],)),
    *_refused("audio", "web_search_options", "moderation"),
    # vLLM and SGLang
    *_refused("best_of", harmless=(1,)),
    *_refused("bad_words", harmless=([],)),
    *_refused(
        *("add_special_tokens", "echo", "no_stop_trim", "return_hidden_states"),
        *("return_prompt_text", "return_routed_experts", "return_token_ids"),
        *("return_token_offsets", "return_tokens_as_token_ids", "use_audio_in_video"),
        *("use_beam_search", "watermarking"),
        harmless=(False,),
    ),
    *_refused(
        *("include_reasoning", "return_mm_kwargs", "separate_reasoning", "skip_special_tokens"),
        *("spaces_between_special_tokens", "stream_reasoning"),
        harmless=(True,),
    ),
    *_refused("length_penalty", harmless=(1, 1.0)),
    *_refused("priority", "routed_experts_prompt_start", harmless=(0,)),
    *_refused(
        *("allowed_token_ids", "cache_salt", "custom_params", "ec_transfer_params", "extra_key"),
        *("guided_decoding_backend", "guided_whitespace_pattern", "kv_transfer_params"),
        *("logits_processors", "logprob_token_ids", "lora_path", "max_dynamic_patch"),
        *("media_io_kwargs", "min_dynamic_patch", "mm_processor_kwargs", "prompt_logprobs"),
        *("repetition_detection", "session_params", "stop_regex", "structural_tag", "task"),
        *("thinking_token_budget", "truncate_prompt_tokens", "truncation_side", "vllm_xargs"),
    ),
    *_refused("guided_json", instead="structured_outputs.json"),
    *_refused("guided_regex", "regex", instead="structured_outputs.regex"),
    *_refused("guided_choice", instead="structured_outputs.choice"),
    *_refused("guided_grammar", "ebnf", instead="structured_outputs.grammar"),
    # Other services
    *_refused("reasoning", instead="reasoning_effort"),
    *_refused("thinking", instead="enable_thinking"),
    # Qwen's own services
    *_refused(
        *("enable_code_interpreter", "enable_search", "tool_stream", "vl_high_resolution_images"),
        harmless=(False,),
    ),
    *_refused("incremental_output", harmless=(True,)),
    *_refused(
        "preserve_thinking", harmless=(False,), instead="chat_template_kwargs.preserve_thinking"
    ),
    *_refused("search_options", "thinking_budget", "translation_options"),
    # llama.cpp
    *_refused("grammar", instead="structured_outputs.grammar"),
    *_refused("json_schema", instead="response_format"),
    *_refused("n_predict", "max_new_tokens", instead="max_tokens"),
    *_refused("repeat_penalty", instead="repetition_penalty"),
    *_refused("n_probs", harmless=(0,), instead="top_logprobs"),
    *_refused(
        *("post_sampling_probs", "return_progress", "return_tokens", "timings_per_token"),
        harmless=(False,),
    ),
    *_refused(
        *("dry_allowed_length", "dry_base", "dry_multiplier", "dry_penalty_last_n"),
        *("dry_sequence_breakers", "dynatemp_exponent", "dynatemp_range", "id_slot", "lora"),
        *("min_keep", "mirostat", "mirostat_eta", "mirostat_tau", "n_cmpl", "n_discard"),
        *("n_indent", "n_keep", "reasoning_budget", "reasoning_format", "repeat_last_n"),
        *("response_fields", "samplers", "t_max_predict_ms", "top_n_sigma", "typical_p"),
        *("xtc_probability", "xtc_threshold"),
    ),
)

_SECURITY = "would let a caller reach past the gateway"

FORBIDDEN = tuple(
    Parameter(name, "forbidden", note=_SECURITY)
    for name in (
        "api_base",
        "api_key",
        "api_version",
        "base_url",
        "bootstrap_host",
        "bootstrap_port",
        "bootstrap_room",
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

# Values of honoured parameters that ask for nothing; routes that have not the parameter take them.
NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "n": (1,),
        "logprobs": (False,),
        "logit_bias": ({},),
        "ignore_eos": (False,),
        "min_tokens": (0,),
        "stop_token_ids": ([],),
        "include_stop_str_in_output": (False,),
        "continue_final_message": (False,),
        "add_generation_prompt": (True,),
        "tool_choice": ("none",),
        "function_call": ("none",),
        "response_format": ({"type": "text"},),
    }
)
