"""A fake engine that says it runs Qwen-1, and writes ReAct text as that model does."""

from collections.abc import Iterable

from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Script, Step, reply

CALL = 'Thought: I look.\nAction: weather\nAction Input: {"city": "Paris 巴黎"}'
# What the model writes on if nobody stops it.
INVENTED = "\nObservation: 99 degrees\nThought: I now know.\nFinal Answer: 99"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def weather(job: Job) -> Iterable[Step]:
    """Call a tool when there is one, then answer with what it found."""
    last = job.messages[-1]
    if last.role == "tool":
        answer = f"It is {last.content}."
        text = f" I now know.\nFinal Answer: {answer}" if job.tools else f" {answer}"
    else:
        text = CALL + INVENTED if job.tools else "It is warm."
    return reply(text)(job)


class Qwen1Engine(FakeEngine):
    """The fake engine, of another family."""

    def __init__(self, script: Script = weather) -> None:
        super().__init__(
            script,
            context=2048,
            slots=2,
            count_by="characters",
            family="qwen1",
            tools="react",
        )
