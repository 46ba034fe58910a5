"""Events to the response object of POST /v1/responses, and to the events of its stream.

Knows OpenAI's wire (specification 2.3.0: Response and ResponseStreamEvent), no HTTP. The plain
answer is what the last event of a stream holds, made in the same place.
"""

from qwen_openai.core import Event, Job
from qwen_openai.errors import ApiError, EngineFailed, InvalidRequest
from qwen_openai.protocol.response_items import FunctionTool
from qwen_openai.protocol.responses_api import ResponsesRequest
from qwen_openai.protocol.wire import Wire
from qwen_openai.responses.extras import with_members
from qwen_openai.responses.fold import Fold
from qwen_openai.responses.output_items import Change, Output
from qwen_openai.sse import frame


class ResponseFold(Fold):
    """What was seen of the only choice, also as output items. ``news`` is what the last event
    changed about those."""

    def __init__(self, id: str) -> None:
        """`id` is the response's; those of items are made of it."""
        super().__init__(1)
        self.output = Output(id.removeprefix("resp_"))
        self.news: list[Change] = []

    def add(self, event: Event) -> None:
        """Take one event."""
        super().add(event)
        self.news = self.output.add(event)


class ResponsesReply:
    """One response. Its stream ends with its last event, and not with [DONE]."""

    done = b""

    def __init__(
        self, request: ResponsesRequest, job: Job, fold: ResponseFold, *, created: int
    ) -> None:
        """`created` is Unix time in seconds; `fold` is given every event before `chunks` is."""
        self._fold = fold
        self._created = created
        self._head = {"id": job.id, "object": "response", "created_at": created}
        self._told = _told(request, job)
        self._next = 0

    def opening(self) -> list[dict[str, object]]:
        """Return the events that come before anything is generated."""
        response = self._response("in_progress")
        return [
            self._numbered({"type": "response.created", "response": response}),
            self._numbered({"type": "response.in_progress", "response": response}),
        ]

    def chunks(self, event: Event) -> list[dict[str, object]]:
        """Return what the event that the fold took last changed."""
        return [self._numbered(change) for change in self._fold.news]

    def closing(self, fold: Fold) -> list[dict[str, object]]:
        """Return the event that holds the whole response. Raises EngineFailed without an end."""
        body = self.body(fold)
        return [self._numbered({"type": f"response.{body['status']}", "response": body})]

    def body(self, fold: Fold) -> dict[str, object]:
        """Return the whole response. Raises EngineFailed if the answer never finished."""
        reason = fold.choices[0].reason
        if reason is None:
            raise EngineFailed("The engine stopped before the answer was finished; try again.")
        if reason == "length":
            details = {"reason": "max_output_tokens"}
            return self._response("incomplete", incomplete_details=details, usage=self._usage())
        return self._response("completed", usage=self._usage())

    def frame(self, chunk: object) -> bytes:
        """Return an event, named twice: clients look for either name."""
        assert isinstance(chunk, dict)  # noqa: S101  # made here; tells the type checker
        return f"event: {chunk['type']}\n".encode() + frame(chunk)

    def failed(self, error: ApiError) -> bytes:
        """Return the events of a response that broke: what became of it, and an error.

        The error stands in the event twice, as the specification has it and as an object, which the
        openai SDK raises as APIError.
        """
        self._fold.output.abandon()
        told = error.to_object()
        code = "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
        failure = {"code": code, "message": error.message}
        response = self._response("failed", error=failure, usage=self._usage())
        ends: tuple[Change, ...] = (
            {"type": "response.failed", "response": response},
            {
                "type": "error",
                "code": told["code"],
                "message": told["message"],
                "param": told["param"],
                "error": told,
            },
        )
        return b"".join(self.frame(self._numbered(end)) for end in ends)

    def _numbered(self, change: Change) -> dict[str, object]:
        number = self._next
        self._next += 1
        return {**change, "sequence_number": number}

    def _response(self, status: str, **members: object) -> dict[str, object]:
        extra = self._fold.choices[0].extra
        return {
            **({} if extra is None else {**extra.delta, **extra.choice, **extra.body}),
            **self._head,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": self._fold.output.body(),
            **self._told,
            **({} if extra is None else _tier(extra.body)),
            **members,
        }

    def _usage(self) -> dict[str, object]:
        usage = self._fold.usage
        told: dict[str, object] = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        }
        return with_members(told, self._fold.extra.usage)


def _told(request: ResponsesRequest, job: Job) -> dict[str, object]:
    """Return what the response repeats of its request, with what was decided where it said nothing.

    Nothing is stored, whatever was asked.
    """
    text, reasoning = request.text, request.reasoning
    format = None if text is None else text.format
    choice = request.tool_choice or "auto"
    return {
        "model": job.model,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "metadata": request.metadata or {},
        "parallel_tool_calls": job.parallel_tool_calls,
        "previous_response_id": None,
        "background": False,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
        "service_tier": "default",
        "store": False,
        "temperature": job.sampling.temperature,
        "text": {"format": _plain(format) if format else {"type": "text"}, "verbosity": "medium"},
        "tool_choice": choice if isinstance(choice, str) else _plain(choice),
        "tools": [_tool(tool) for tool in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": job.sampling.top_p,
        "truncation": request.truncation or "disabled",
        **({} if request.user is None else {"user": request.user}),
    }


def _tier(body: dict[str, object]) -> dict[str, object]:
    """Return the tier that an upstream says it served the request in."""
    tier = body.get("service_tier")
    return {"service_tier": tier} if isinstance(tier, str) else {}


def _tool(tool: FunctionTool) -> dict[str, object]:
    return {**tool.model_dump(), "strict": tool.strict is True}


def _plain(model: Wire) -> dict[str, object]:
    """Return what a caller sent, without what it left out."""
    return model.model_dump(by_alias=True, exclude_none=True)
