"""Tools as the text that Qwen-1 was trained on: ReAct, one line a label. Writing only.

Pure. `parsing.react` reads what the model writes in the same format; `adapter.history` decides
which turn gets what. Source of the format: QwenLM/Qwen, openai_api.py and its ReAct examples.
"""

import json
import re
from collections.abc import Sequence

from qwen_openai.core import Tool, ToolCall

LABELS = ("Thought:", "Action:", "Action Input:", "Observation:", "Final Answer:", "Question:")

# What a turn that ends with results is left open with: the model goes on thinking, or, where it
# has no tools any more, answers.
OPEN_THOUGHT = "\nThought:"
OPEN_ANSWER = "\nThought: I now know the final answer.\nFinal Answer:"

_NO_PARAMETERS: dict[str, object] = {"type": "object", "properties": {}}

_INSTRUCTION = """\
Answer the following questions as best you can. You have access to the following APIs:

{tools}

Use the following format:

Question: the input question you must answer
Thought: you should always think about what to do
Action: the action to take, should be one of [{names}]
Action Input: the input to the action
Observation: the result of the action
... (this Thought/Action/Action Input/Observation can be repeated zero or more times)
Thought: I now know the final answer
Final Answer: the final answer to the original input question

Begin!

Question: """

# A label where a line begins. Whatever some tokenizer or terminal takes for the end of a line
# counts; the very beginning does not, since a result stands behind "Observation: ".
_LABEL_LINE = re.compile(
    "(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])(?=(?:"
    + "|".join(re.escape(label) for label in LABELS)
    + "))"
)


def question(tools: Sequence[Tool], text: str) -> str:
    """Return a user's turn that tells of tools (at least one) and then asks `text`."""
    described = "\n\n".join(_described(tool) for tool in tools)
    names = ", ".join(tool.name for tool in tools)
    return _INSTRUCTION.format(tools=described, names=names) + text


def _described(tool: Tool) -> str:
    name = tool.name
    parameters = _NO_PARAMETERS if tool.parameters is None else tool.parameters
    parts = (
        f"{name}: Call this tool to interact with the {name} API.",
        f"What is the {name} API useful for?",
        tool.description.strip(),
        f"Parameters: {json.dumps(parameters, ensure_ascii=False)}",
        "Format the arguments as a JSON object.",
    )
    return " ".join(part for part in parts if part)


def calls(thought: str, made: Sequence[ToolCall], results: Sequence[str]) -> str:
    """Return calls with their results, one after another, as the model would have written them.
    The results are `inert` already."""
    steps = [
        f"Action: {call.name}\nAction Input: {call.arguments.strip()}\nObservation: {result}"
        for call, result in zip(made, results, strict=True)
    ]
    return "\n".join((f"Thought: {thought}", *steps))


def final_answer(text: str) -> str:
    """Return a plain answer of the assistant as the format has it."""
    return f"Thought: I now know the final answer.\nFinal Answer: {text}"


def inert(result: str) -> str:
    """Return a tool's result without any line that begins like a step of the format: one space is
    put before the label. Anything else stays as it is."""
    return _LABEL_LINE.sub(" ", result)
