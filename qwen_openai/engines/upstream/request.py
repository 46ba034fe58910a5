"""A job to the body of the request that goes to another server.

Pure; knows OpenAI's wire (specification 2.3.0) and, by `kinds`, how servers differ from it. Asks
for one answer, whatever the caller's `n`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from qwen_openai.core import Job, Message, Sampling
from qwen_openai.engines.upstream.kinds import NEVER, Row
from qwen_openai.errors import UnsupportedParameter

Body = dict[str, object]

_NEUTRAL = Sampling()
# The fields of core.Sampling that are called the same on the wire.
_SAMPLED = (
    *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "seed", "max_tokens", "ignore_eos", "min_tokens"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """``path`` is behind the server's base URL; ``estimate`` is about how many tokens the prompt
    has, for as long as the server has not said it."""

    path: str
    body: bytes
    estimate: int


def request_of(job: Job, model: str, row: Row) -> Request:
    """Return what to send for one job; ``model`` is the server's own name of it. Raises
    UnsupportedParameter for a format that this kind of server cannot enforce."""
    body = _body(job, model, row)
    if job.prompt is None:
        path = "/chat/completions"
        body["messages"] = [_message(each, row) for each in job.messages]
    else:
        path = "/completions"
        body["prompt"] = job.prompt.text
        if job.prompt.suffix is not None:
            body["suffix"] = job.prompt.suffix
        body["max_tokens"] = job.sampling.max_tokens or 16
        if job.sampling.logprobs is not None:
            # Also where the caller did not ask: the best of several is chosen by them.
            body["logprobs"] = job.sampling.logprobs
    sent = orjson.dumps(body)
    return Request(path, sent, len(sent) // 4 + 1)


def conversation_of(job: Job, row: Row) -> Body:
    """Return the members that make a job's prompt: what the tokenizers of servers take."""
    body: Body = {"messages": [_message(each, row) for each in job.messages]}
    if job.tools:
        body["tools"] = _tools(job)
    if row.templates:
        _add_template(body, job)
    if job.continue_final_message:
        body["continue_final_message"] = True
    return body


def _body(job: Job, model: str, row: Row) -> Body:
    asked = job.asked
    body: Body = {"model": model}
    for name, value in (_sampled(job, row) if asked is None else asked).items():
        if name not in NEVER and name not in row.drops:
            body[row.names.get(name, name)] = value
    if job.sampling.seed is not None:
        body["seed"] = job.sampling.seed + job.choice
    if row.no_limit and body.get("top_k") == 0:
        body["top_k"] = row.no_limit
    if asked is not None:
        _add_format(body, asked.get("structured_outputs"), row)
    _add_tools(body, job, row)
    if row.templates:
        _add_template(body, job)
    if job.watched:
        body["stream"] = True
        body["stream_options"] = {
            "include_usage": True,
            **({"continuous_usage_stats": True} if row.counts else {}),
        }
    return body


def _sampled(job: Job, row: Row) -> Body:
    """Return what the job says of itself, where no body of our caller's says it."""
    sampling = job.sampling
    body: Body = {
        name: value
        for name in _SAMPLED
        if (value := getattr(sampling, name)) != getattr(_NEUTRAL, name) and name not in row.refuses
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.include_stop:
        body["include_stop_str_in_output"] = True
    if sampling.stop_token_ids:
        body["stop_token_ids"] = list(sampling.stop_token_ids)
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if job.continue_final_message:
        body["continue_final_message"] = True
    if sampling.logprobs is not None:
        plain = job.prompt is None
        body["logprobs"] = True if plain else sampling.logprobs
        if plain:
            body["top_logprobs"] = sampling.logprobs
    if job.tools:
        body["tools"] = _tools(job)
        if not job.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    return body


def _message(message: Message, row: Row) -> Body:
    sent: Body = {"role": message.role, "content": message.content}
    if message.tool_calls:
        sent["content"] = message.content or None
        sent["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        sent["tool_call_id"] = message.tool_call_id
    if message.reasoning:
        sent["reasoning_content"] = message.reasoning
        if row.formats == "vllm":  # its later versions read this one
            sent["reasoning"] = message.reasoning
    return sent


def _tools(job: Job) -> list[Body]:
    tools: list[Body] = []
    for tool in job.tools:
        function: Body = {"name": tool.name, "description": tool.description}
        if tool.parameters is not None:
            function["parameters"] = tool.parameters
        if tool.strict:
            function["strict"] = True
        tools.append({"type": "function", "function": function})
    return tools


def _add_tools(body: Body, job: Job, row: Row) -> None:
    """Say the older form, lists of allowed tools and names in the words that all servers know."""
    asked = job.asked
    if asked is None:
        return
    if asked.get("functions") is not None:
        if not job.tools:
            return  # function_call: none
        body["tools"] = _tools(job)
        body["parallel_tool_calls"] = False
        called = asked.get("function_call")
        if isinstance(called, dict):
            body["tool_choice"] = {"type": "function", "function": {"name": called.get("name")}}
    choice = body.get("tool_choice")
    if not isinstance(choice, Mapping):
        return
    allowed = choice.get("allowed_tools")
    if isinstance(allowed, Mapping):
        body["tools"], body["tool_choice"] = _tools(job), allowed.get("mode", "auto")
    elif not row.chooses:
        # Taken for "auto" there: with one tool and "required" it is the same.
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        body["tools"] = [
            each for each, tool in zip(_tools(job), job.tools, strict=True) if tool.name == name
        ]
        body["tool_choice"] = "required"
        body["parallel_tool_calls"] = False


def _add_template(body: Body, job: Job) -> None:
    if job.prompt is not None:
        return
    options: Body = dict(job.template_options)
    if job.enable_thinking is not None:
        options["enable_thinking"] = job.enable_thinking
    if options:
        body["chat_template_kwargs"] = options
    if job.continue_final_message:
        # Servers refuse the one without the other.
        body["add_generation_prompt"] = False


def _add_format(body: Body, outputs: object, row: Row) -> None:
    """Say vLLM's `structured_outputs` in the server's own way."""
    if not isinstance(outputs, Mapping):
        return
    given = {name: value for name, value in outputs.items() if value not in (None, False)}
    if row.formats == "vllm":
        body["structured_outputs"] = given
        return
    for name, value in given.items():
        if name == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif name == "json":
            schema = orjson.loads(value) if isinstance(value, str) else value
            named = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        else:
            _add_rules(body, name, value, row)


def _add_rules(body: Body, name: str, value: object, row: Row) -> None:
    if row.formats == "sglang" and name == "regex":
        body["regex"] = value
    elif row.formats == "sglang" and name == "choice" and isinstance(value, list):
        body["regex"] = "(" + "|".join(re.escape(each) for each in value) + ")"
    elif row.formats == "sglang" and name == "grammar" and _is_gbnf(value):
        body["ebnf"] = value
    elif row.formats == "llamacpp" and name == "choice" and isinstance(value, list):
        choices = " | ".join(orjson.dumps(each).decode() for each in value)
        body["grammar"] = f"root ::= {choices}"
    elif row.formats == "llamacpp" and name == "grammar" and _is_gbnf(value):
        body["grammar"] = value
    else:
        raise UnsupportedParameter(
            f"structured_outputs.{name} cannot be honoured by the server that runs this model; "
            "leave it out, or use response_format.",
            param=f"structured_outputs.{name}",
        )


def _is_gbnf(rules: object) -> bool:
    return isinstance(rules, str) and "::=" in rules
