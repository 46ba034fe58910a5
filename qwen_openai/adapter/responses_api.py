"""A responses request to a Job: its items become the chat request that asks for the same.

Pure. All that is decided of a request is decided by `adapter.chat`; here is what the two kinds of
body call things, in both directions: an error about the chat request names the caller's own place.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from qwen_openai.adapter.chat import chat_job
from qwen_openai.adapter.conversation import PART_SEPARATOR
from qwen_openai.adapter.limits import Limits
from qwen_openai.core import Job, Role
from qwen_openai.errors import InvalidRequest
from qwen_openai.families import Family
from qwen_openai.protocol.chat import ChatRequest
from qwen_openai.protocol.fields import header_names
from qwen_openai.protocol.formats import (
    JsonSchema,
    JsonSchemaFormat,
    ResponseFormat,
    check_formats,
)
from qwen_openai.protocol.messages import MAX_CALLS, CalledFunction, CalledTool, ChatMessage
from qwen_openai.protocol.response_items import (
    AllowedChoice,
    CallItem,
    Choice,
    FunctionChoice,
    Item,
    MessageItem,
    Part,
    ReasoningItem,
)
from qwen_openai.protocol.responses_api import ResponsesRequest, SchemaFormat
from qwen_openai.protocol.tools import (
    AllowedList,
    AllowedTools,
    FunctionDefinition,
    NamedChoice,
    NamedFunction,
    ToolChoice,
    ToolDefinition,
    check_tools,
)

# The chat request's names, and what they are called here.
_NAMES = (
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
    ("max_completion_tokens", "max_output_tokens"),
    ("tool_choice.allowed_tools", "tool_choice"),
    ("tool_choice.function", "tool_choice"),
    ("logprobs", "top_logprobs"),
    ("messages", "input"),
)
_WORDS = (
    ("tool_call_id", "call_id"),
    ("an assistant message with tool_calls", "a function_call"),
    ("no assistant message with tool_calls", "no function_call"),
    ("a tool message", "a function_call_output"),
)
_MESSAGE = re.compile(r"messages\[(\d+)\](?:\.tool_calls\[(\d+)\])?(.*)", re.DOTALL)
_TOOL = re.compile(r"(tools\[\d+\])\.function(.*)", re.DOTALL)


def responses_job(
    request: ResponsesRequest,
    *,
    id: str,
    family: Family,
    limits: Limits,
    refuses: frozenset[str] = frozenset(),
    hands_on: bool = False,
) -> Job:
    """Return the job of a request. Arguments and errors are those of `chat_job`, the latter with
    the places of this request. With `hands_on` the job says what was asked, as a chat request would
    have asked it."""
    turns = _turns(request)
    try:
        chat = _chat(request, turns)
        check_tools(chat)
        check_formats(chat.response_format, None)
        job = chat_job(chat, id=id, family=family, limits=limits, refuses=refuses)
    except InvalidRequest as error:
        raise turns.in_place(error) from None
    grammar = job.grammar
    if grammar is not None:
        grammar = replace(grammar, param=turns.name(grammar.param))
    return replace(
        job,
        grammar=grammar,
        asked=chat.as_asked() if hands_on else None,
        drop_oldest_pairs=request.truncation == "auto",
        ignored=header_names(turns.name(name) for name in job.ignored),
    )


@dataclass(slots=True)
class _Turn:
    """A chat message in the making, and the places it came from: its own, and one for each of its
    calls."""

    place: str
    role: Role
    content: str = ""
    reasoning: str = ""
    tool_call_id: str | None = None
    calls: list[tuple[str, CalledTool]] = field(default_factory=list)

    def go_on(self, content: str, reasoning: str) -> None:
        """Add to what is said and thought in it."""
        self.content = PART_SEPARATOR.join(filter(None, (self.content, content)))
        self.reasoning = PART_SEPARATOR.join(filter(None, (self.reasoning, reasoning)))

    def made(self) -> ChatMessage:
        """The message."""
        return ChatMessage(
            role=self.role,
            content=self.content,
            tool_calls=[call for _, call in self.calls] or None,
            tool_call_id=self.tool_call_id,
            reasoning_content=self.reasoning or None,
        )


class _Turns:
    """Items to messages: what an assistant thought, said and called, one item each, is one message
    of a chat."""

    def __init__(self) -> None:
        self.turns: list[_Turn] = []
        # Thoughts that still wait for what was thought about, and where the first of them stand.
        self._thoughts: list[str] = []
        self._thinker = ""

    def add(self, place: str, item: Item) -> None:
        """Take the next item."""
        if isinstance(item, ReasoningItem):
            if not self._thoughts:
                self._thinker = place
            self._thoughts.append(_thoughts(item))
            return
        if not _is_assistants(item):
            self.end()
        if isinstance(item, MessageItem):
            self._add_message(place, item)
        elif isinstance(item, CallItem):
            self._add_call(place, item)
        else:
            result = _Turn(place, "tool", _text(item.output), tool_call_id=item.call_id)
            self.turns.append(result)

    def end(self) -> None:
        """Thoughts that nothing of the assistant's follows are a turn that was cut."""
        if self._thoughts:
            self.turns.append(_Turn(self._thinker, "assistant", "", self._taken()))

    def _add_message(self, place: str, item: MessageItem) -> None:
        text = _text(item.content)
        turn = self._unfinished()
        if item.role == "assistant" and turn is not None and turn.calls:
            # Said behind calls whose results have not come: a message of its own would leave them
            # without.
            turn.go_on(text, self._taken())
            return
        reasoning = self._taken() if item.role == "assistant" else ""
        role = "system" if item.role == "developer" else item.role
        self.turns.append(_Turn(place, role, text, reasoning))

    def _add_call(self, place: str, item: CallItem) -> None:
        function = CalledFunction(name=item.name, arguments=item.arguments)
        call = CalledTool(id=item.call_id, type="function", function=function)
        turn = self._unfinished()
        if turn is None:
            turn = _Turn(place, "assistant")
            self.turns.append(turn)
        turn.go_on("", self._taken())
        if len(turn.calls) == MAX_CALLS:
            raise InvalidRequest(
                f"{place}: more than {MAX_CALLS} calls come one after another.", param=place
            )
        turn.calls.append((place, call))

    def _unfinished(self) -> _Turn | None:
        """The assistant's turn, where it is the last one."""
        last = self.turns[-1] if self.turns else None
        return last if last is not None and last.role == "assistant" else None

    def _taken(self) -> str:
        thoughts = PART_SEPARATOR.join(self._thoughts)
        self._thoughts.clear()
        return thoughts

    def name(self, name: str) -> str:
        """Return what a place of the chat request is called here."""
        found = _MESSAGE.fullmatch(name)
        if found is not None:
            return self._place(int(found[1]), found[2], found[3])
        tool = _TOOL.fullmatch(name)
        if tool is not None:
            return tool[1] + tool[2]
        for theirs, ours in _NAMES:
            if name == theirs or name.startswith(f"{theirs}."):
                return ours + name.removeprefix(theirs)
        return name

    def _place(self, message: int, call: str | None, rest: str) -> str:
        turn = self.turns[message]
        if call is None:
            inner = ".call_id" if rest == ".tool_call_id" else ""
            return turn.calls[0][0] if rest == ".tool_calls" else turn.place + inner
        place = turn.calls[int(call)][0]
        return place + (".call_id" if rest == ".id" else rest.removeprefix(".function"))

    def in_place(self, error: InvalidRequest) -> InvalidRequest:
        """Return an error about the chat request as one about this request."""
        param = None if error.param is None else self.name(error.param)
        message = error.message
        if error.param is not None and param is not None:
            # Where a sentence begins with it or quotes it. "Invalid schema for response_format"
            # stays: it is what OpenAI says here too, and clients look for it.
            if message.startswith(error.param):
                message = param + message.removeprefix(error.param)
            message = message.replace(f"'{error.param}'", f"'{param}'")
        for theirs, ours in _WORDS:
            message = message.replace(theirs, ours)
        return type(error)(message, param=param, code=error.code)


def _turns(request: ResponsesRequest) -> _Turns:
    turns = _Turns()
    if request.instructions is not None:
        turns.turns.append(_Turn("instructions", "system", request.instructions))
    if isinstance(request.input, str):
        turns.turns.append(_Turn("input", "user", request.input))
        return turns
    for index, item in enumerate(request.input):
        turns.add(f"input[{index}]", item)
    turns.end()
    return turns


def _is_assistants(item: Item) -> bool:
    if isinstance(item, MessageItem):
        return item.role == "assistant"
    return isinstance(item, CallItem)


def _text(content: str | Sequence[Part]) -> str:
    if isinstance(content, str):
        return content
    return PART_SEPARATOR.join(part.text for part in content)


def _thoughts(item: ReasoningItem) -> str:
    """Return thoughts as they were, or what they came to where only that came back."""
    return "".join(part.text for part in item.content or item.summary or ())


def _chat(request: ResponsesRequest, turns: _Turns) -> ChatRequest:
    wants = request.wants_logprobs
    return ChatRequest(
        model=request.model,
        messages=[turn.made() for turn in turns.turns],
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        seed=request.seed,
        stop=request.stop,
        max_completion_tokens=request.max_output_tokens,
        stream=request.stream,
        logprobs=wants or None,
        top_logprobs=request.top_logprobs if wants else None,
        tools=_tools(request),
        tool_choice=_tool_choice(request),
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=_format(request),
        reasoning_effort=None if request.reasoning is None else request.reasoning.effort,
        ignored=request.ignored,
    )


def _tools(request: ResponsesRequest) -> list[ToolDefinition] | None:
    return [
        ToolDefinition(
            type="function",
            function=FunctionDefinition(
                name=tool.name,
                description=tool.description,
                parameters=tool.parameters,
                strict=tool.strict,
            ),
        )
        for tool in request.tools or ()
    ] or None


def _tool_choice(request: ResponsesRequest) -> ToolChoice | None:
    choice: Choice | None = request.tool_choice
    if isinstance(choice, FunctionChoice):
        return _named(choice)
    if isinstance(choice, AllowedChoice):
        tools = [_named(each) for each in choice.tools]
        return AllowedTools(
            type="allowed_tools", allowed_tools=AllowedList(mode=choice.mode, tools=tools)
        )
    # Clients say "auto" where there is nothing to choose.
    return None if choice == "auto" and not request.tools else choice


def _named(choice: FunctionChoice) -> NamedChoice:
    return NamedChoice(type="function", function=NamedFunction(name=choice.name))


def _format(request: ResponsesRequest) -> ResponseFormat | None:
    format = None if request.text is None else request.text.format
    if not isinstance(format, SchemaFormat):
        return format
    schema = JsonSchema(
        name=format.name,
        description=format.description,
        schema=format.schema_,
        strict=format.strict,
    )
    return JsonSchemaFormat(type="json_schema", json_schema=schema)
